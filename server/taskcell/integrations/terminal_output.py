"""What comes of a shell on a terminal: its output, and apart from that the reports of how its commands ended."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

#: Bytes of output that are held, of which the first are dropped: a command may write without end.
OUTPUT_LIMIT = 16 << 20
#: Bytes of a report's line; what a program writes beside it, without an end, is not held.
REPORT_LIMIT = 4096
_CONTROL = re.compile(rb"\x1b[@-_][0-?]*[ -/]*[@-~]")


@dataclass
class Report:
    """How a command has ended, and the shell's process id."""

    exit_code: int
    shell: int


@dataclass
class TerminalOutput:
    """What has come of a shell and was not taken yet."""

    output: bytearray = field(default_factory=bytearray)
    reports: dict[int, Report] = field(default_factory=dict)
    unread: bytes = b""

    def add(self, data: bytes) -> None:
        self.output += data
        if len(self.output) > 2 * OUTPUT_LIMIT:
            del self.output[:-OUTPUT_LIMIT]

    def add_report(self, data: bytes) -> None:
        *lines, last = (self.unread + data).split(b"\n")
        self.unread = last[-REPORT_LIMIT:]
        for line in lines:
            if found := re.fullmatch(rb"(\d{1,9}) (\d{1,3}) (\d{1,9})", line):
                step, code, shell = map(int, found.groups())
                self.reports[step] = Report(code, shell)

    def take(self, end: int, after: int) -> str:
        """Take the output up to `end`, and drop it up to `after`. Return it as SWE-ReX has it."""
        data = _CONTROL.sub(b"", bytes(self.output[:end])).replace(b"\r\n", b"\n")
        del self.output[:after]
        return data.decode(errors="backslashreplace")
