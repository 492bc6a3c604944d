"""Where the task's next terminal command starts: the folder and variables with which an earlier one ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from taskcell.process.record import Record
from taskcell.process.result import signal_name
from taskcell.sandbox.shell import parse_report
from taskcell.supervisor import events, protocol
from taskcell.text import shown

#: Variables that a shell sets itself; the user did not export them.
SHELL_OWN = frozenset({"_", "SHLVL"})
#: Bytes of a variable, and of all, that a later command is started with: Linux takes no longer string (MAX_ARG_STRLEN,
#: include/uapi/linux/binfmts.h), and they share a frame to the supervisor with the command itself.
VARIABLE_MAX, VARIABLES_MAX = 131_071, 512 * 1024
_OVERTAKEN = "another command was started before it ended"


@dataclass(frozen=True, slots=True)
class Beginning:
    """What the end of a foreground command is judged by.

    Arguments:
        given: variables of its call alone, with their values where they are known.
        folder: where it started, if it can change neither folder nor variables; None if it may, or nobody knows.
        unreported: what to say if its shell does not report where it ends; empty: nothing.
    """

    given: Mapping[str, str | None]
    folder: str | None = None
    unreported: str = ""


@dataclass(slots=True)
class TerminalState:
    """What the next command starts with, and whose end may change that.

    Every foreground command's end does while its call waits. Of those that go on without their calls it is only the
    command that was started last: whoever has started another one since has chosen where that one starts.

    Arguments:
        cwd, env: of the last command whose end counted; None before the first one.
        latest: the foreground command that was started last.
        owed: one whose end counts though its report is not here yet.
    """

    cwd: str | None = None
    env: dict[str, str] | None = None
    latest: Record | None = None
    owed: tuple[Record, Beginning] | None = None

    def begin(self, record: Record) -> Record | None:
        """Note that a foreground command starts; return the one that was the latest until now."""
        earlier, self.latest = self.latest, record
        if earlier is not None and earlier.is_handed_off and earlier.process.exit is None:
            _mark(earlier, _OVERTAKEN)
        return earlier

    def withdraw(self, record: Record, earlier: Record | None) -> None:
        """Note that a command that began could not be started. `earlier` as `begin` returned it."""
        if self.latest is record:
            self.latest = earlier
            if earlier is not None and earlier.process.exit is None:
                earlier.unkept = ""

    def hand_off(self, record: Record) -> bool:
        """Note that a foreground command goes on without its call; return whether its end still counts."""
        record.is_handed_off = True
        if self.latest is not record:
            _mark(record, _OVERTAKEN)
        return self.latest is record

    def end(self, record: Record, beginning: Beginning, before: Mapping[str, str]) -> None:
        """Keep where a foreground command ended, or say in `record.unkept` why not.

        Arguments:
            before: what it would start with if it started now.
        """
        ended = record.process.exit
        if ended is None or (record.is_handed_off and self.latest is not record):
            return
        if why := _cut_short(ended):
            _mark(record, why)
        elif beginning.folder is not None:
            self.cwd = beginning.folder
        elif len(ended.report) < ended.report_size:
            self.owed = record, beginning
        else:
            self.take(record, beginning, before, ended.report)

    def take(self, record: Record, beginning: Beginning, before: Mapping[str, str], report: bytes) -> None:
        """Keep what a command's shell reported, whole. Arguments as in `end`."""
        found = parse_report(report)
        if found is None:
            _mark(record, beginning.unreported)
            return
        dropped = self.keep(found.folder, found.env, beginning.given, before)
        if not found.folder:
            record.unkept = "The folder that it ended in is gone"
        if dropped:
            names = ", ".join(map(shown, dropped))
            record.end_note = f"Too large to start a program with, so not kept for the next command: {names}."

    def keep(
        self, folder: str, env: Mapping[str, str], given: Mapping[str, str | None], before: Mapping[str, str]
    ) -> list[str]:
        """Keep folder and variables; return the names of variables that are too large. Arguments as in `end`."""
        kept = dict(env)
        for name, value in given.items():
            # A variable of its call alone is not kept, unless the command changed it.
            if value is None or kept.get(name) == value:
                kept.pop(name, None)
                kept |= {name: before[name]} if name in before else {}
        self.env, dropped = startable({name: value for name, value in kept.items() if name not in SHELL_OWN})
        self.cwd = folder or None
        return dropped


def _cut_short(ended: events.Exit) -> str:
    """Return why a command came to no end of its own, or nothing."""
    if ended.reason is protocol.Reason.TIMEOUT:
        return "it was killed at its timeout"
    if ended.reason in (protocol.Reason.KILL, protocol.Reason.CANCEL):
        return "it was killed"
    return f"{signal_name(ended.signal)} ended it" if ended.signal else ""


def _mark(record: Record, why: str) -> None:
    """Say why a command leaves no folder and variables, if it could and there is a reason."""
    if record.may_move and why:
        record.unkept = f"Its folder and variables are not kept, because {why}"


def startable(env: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """Return the variables that a program can be started with, and the names of the others: the largest go first."""
    sizes = {key: len(_bytes(key)) + len(_bytes(value)) + 2 for key, value in env.items()}
    total, dropped = sum(sizes.values()), []
    for key in sorted(sizes, key=sizes.__getitem__, reverse=True):
        if sizes[key] <= VARIABLE_MAX and total <= VARIABLES_MAX:
            break
        dropped.append(key)
        total -= sizes[key]
    return {key: value for key, value in env.items() if key not in dropped}, dropped


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
