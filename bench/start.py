"""Measure how long a server takes from its process's start to its answer to `initialize`, and what that time goes to.

    start.py [--write PAGE] [--modules N]     N: the slowest imports that are shown (default 15)

The measure is what importing the SDK's low-level server takes, from a process's start until it has written a line after
the import: no server with this SDK can be quicker. Neither figure has the end of the process in it.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from page import write_section

#: Rounds; in each, all are measured in turn, so that what else the machine does slows all of them alike.
ROUNDS = 21
#: Seconds for the end of one process on a busy machine.
PATIENCE = 60.0
HEADING = "## The start"

INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "start", "version": "1"}},
}
LINE = "import os; os.write(1, b'\\n')"
BARE = ["-c", LINE]
SDK = ["-c", f"import mcp.server.lowlevel.server, anyio; {LINE}"]
SERVE = ["-m", "taskcell", "serve"]
_IMPORT = re.compile(r"import time:\s+(\d+) \|\s+(\d+) \|(\s*)(\S+)")


def first_line(folder: Path, words: list[str]) -> tuple[float, str]:
    """Return the seconds until an interpreter has written its first line, and what it said about imports before it.

    Every one gets the request; only the server reads it.
    """
    environ = {**os.environ, "XDG_STATE_HOME": str(folder)}
    request = json.dumps(INITIALIZE) + "\n"
    about: list[str] = []
    began = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, *words],
        # One pipe, so that what is said about imports comes in its order.
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=folder, env=environ, text=True,
    ) as process:  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(request)
        process.stdin.flush()
        while (line := process.stdout.readline()).startswith("import time:"):
            about.append(line)
        took = time.perf_counter() - began
        assert "taskcell" not in words or json.loads(line)["result"]["serverInfo"]["name"] == "taskcell"
        process.communicate(timeout=PATIENCE)
    return took, "".join(about)


def section_of(bare: list[float], sdk: list[float], whole: list[float], modules: int) -> str:
    """Return the section of the page.

    Arguments:
        bare, sdk, whole: seconds, by round.
        modules: of taskcell that are loaded at the first answer.
    """
    ratios = sorted(ours / least for ours, least in zip(whole, sdk, strict=True))
    least = statistics.median(sdk)
    rows = [("an interpreter alone", bare), ("import of the SDK's low-level server", sdk), ("taskcell", whole)]
    return "\n".join(
        [
            HEADING,
            "",
            f"`make bench` writes this section: from a process's start to its first line, {ROUNDS} rounds in turn.",
            "taskcell's first line is its answer to `initialize`, with the default configuration; the SDK's is",
            "written when the import is done. Medians.",
            "",
            "| process | first line | ratio |",
            "| --- | --- | --- |",
            *(f"| {name} | {statistics.median(taken) * 1000:.0f} ms | {statistics.median(taken) / least:.2f} times |"
              for name, taken in rows),
            "",
            f"- In half of the rounds the ratio is between {ratios[len(ratios) // 4]:.2f} and "
            f"{ratios[-len(ratios) // 4]:.2f}.",
            f"- {modules} modules of taskcell are loaded by then; the others, and what talks to the engine, come "
            "after it.",
        ]
    ) + "\n"  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=Path, help="write the section into this page as well")
    parser.add_argument("--modules", type=int, default=15)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        taken = [[first_line(folder, words)[0] for words in (BARE, SDK, SERVE)] for _ in range(ROUNDS)]
        _, said = first_line(folder, ["-X", "importtime", *SERVE])
    bare, sdk, whole = (list(column) for column in zip(*taken, strict=True))
    found = sorted(((int(own), name) for own, _, _, name in _IMPORT.findall(said)), reverse=True)
    section = section_of(bare, sdk, whole, sum(name.startswith("taskcell") for _, name in found))
    print(section)
    print(f"The slowest of {len(found)} imports by themselves:")
    for own, name in found[: options.modules]:
        print(f"{own / 1000:8.1f} ms  {name}")
    if options.write:
        write_section(options.write, HEADING, section)


if __name__ == "__main__":
    main()
