"""Drives every client of the matrix against a default installation, and prints what works.

`python tests/clients/matrix/run.py [--within SECONDS] [--write PAGE] [NAME…]`: a NAME is a part of a client's title.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent / "drivers")]

from environments import CLIENTS, DRIVERS, Client, install, is_installed  # noqa: E402
from page import CHECKS, write  # noqa: E402
from probe import PROGRAM  # noqa: E402

TASKCELL = str(Path(sys.executable).with_name("taskcell"))
ENGINE_VARIABLES = ("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_CONFIG", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH")
#: Clients at once: each waits most of the time.
AT_ONCE = 3
#: Driven first where the time is short: what differs most from an SDK's own client. Two start a server for each call.
FIRST = ("mcp-use's agent", "LangChain, `get_tools()`", "AutoGen, `mcp_server_tools()`")
#: Seconds for one client, which takes twenty on an idle machine.
CLIENT_TIMEOUT = 600
#: Seconds for all clients that are driven once more, where the whole run is bounded.
RETRY_TIMEOUT = 90
#: Seconds to remove the sandboxes that its servers left to each other.
REMOVE_TIMEOUT = 120
WIDTH = 120


@dataclass
class Row:
    """What became of one client: an outcome and what was said for each check, or why it was left out."""

    client: Client
    outcomes: dict[str, tuple[str, str]] = field(default_factory=dict)
    left_out: str = ""

    @property
    def broken(self) -> bool:
        """A check that was made failed."""
        return any(outcome == "failed" for outcome, _ in self.outcomes.values())

    @property
    def failed(self) -> list[str]:
        if self.left_out:
            return []
        checks = [check for check in CHECKS if self.outcomes.get(check, ("failed", ""))[0] == "failed"]
        return [f"{check}: {self.outcomes.get(check, ('', 'its driver broke'))[1]}" for check in checks]

    @property
    def default_timeout(self) -> float | None:
        seconds: float | None = json.loads(self.outcomes.get("default time-out", ("", "null"))[1])
        return seconds


def drive(client: Client, deadline: float) -> Row:
    """Install a client and make all checks with it.

    Arguments:
        deadline: on the monotonic clock; the client is ended then, and is left out with what it had not done.
    """
    row = Row(client)
    if time.monotonic() > deadline:
        row.left_out = "no time was left"
        return row
    try:
        install(client, deadline)
    except (subprocess.SubprocessError, OSError) as error:
        row.left_out = f"it could not be installed: {error}"
        return row
    with tempfile.TemporaryDirectory(prefix="taskcell-matrix-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        environ = server_environment(folder)
        try:
            said, was_cut = _run_driver(client, folder, environ, deadline)
        finally:
            subprocess.run(
                [TASKCELL, "rm", "--all"],
                env=environ,
                cwd=folder,
                capture_output=True,
                timeout=REMOVE_TIMEOUT,
                check=False,
            )
    for line in said.splitlines():
        if line.startswith('{"check"') and line.endswith("}"):
            found = json.loads(line)
            row.outcomes[found["check"]] = (found["outcome"], found["said"])
    if was_cut and not row.broken:
        missing = ", ".join(check for check in CHECKS if check not in row.outcomes)
        row.left_out = f"the time was over; not made: {missing}"
    return row


def server_environment(folder: Path) -> dict[str, str]:
    """Variables of a new user on this machine, whose servers are of a deployment of their own."""
    names = ("PATH", "HOME", *ENGINE_VARIABLES)
    return {
        **{name: os.environ[name] for name in names if name in os.environ},
        "XDG_STATE_HOME": str(folder / "state"),
        "XDG_CONFIG_HOME": str(folder / "config"),
        "TASKCELL__DEPLOYMENT": folder.name,
    }


def _run_driver(client: Client, folder: Path, environ: dict[str, str], deadline: float) -> tuple[str, bool]:
    """Return what a driver printed, and whether it was ended because the time was over."""
    launch = ["-SE", str(DRIVERS / "launch.py"), str(folder / "exits"), TASKCELL, "serve"]
    server = {"command": sys.executable, "args": launch, "env": environ, "folder": str(folder), "program": PROGRAM}
    own = {**os.environ, "MATRIX_SERVER": json.dumps(server), "MATRIX_PACKAGES": str(client.folder)}
    with (folder / "errors").open("w+") as errors:
        process = subprocess.Popen(
            client.argv, env=own, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors,
            text=True, start_new_session=True,
        )  # fmt: skip
        try:
            said, _ = process.communicate(timeout=min(CLIENT_TIMEOUT, max(0.0, deadline - time.monotonic())))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            said, _ = process.communicate()
        was_cut = process.returncode == -signal.SIGKILL and time.monotonic() > deadline
        if (process.returncode != 0 and not was_cut) or '"failed"' in said:
            errors.seek(0)
            print(f"--- {client.title}: exit {process.returncode}\n{errors.read()[-6000:]}", file=sys.stderr)
    return said, was_cut


def once_more(row: Row, deadline: float) -> Row:
    """Drive a client that failed again, alone, as `make test` does with tests. What passes then is to be mended."""
    print(f"{row.client.title} failed ({'; '.join(row.failed)[:400]}), and is driven once more, alone.")
    again = drive(row.client, deadline)
    return row if again.left_out else again


def show(rows: list[Row]) -> None:
    table = Table("client", *CHECKS, width=WIDTH)
    marks = {"held": "✓", "gap": "-", "failed": "FAILED", "left out": ""}
    for row in rows:
        missing = ("left out" if row.left_out else "failed", "")
        cells = [marks[row.outcomes.get(check, missing)[0]] for check in CHECKS]
        table.add_row(f"{row.client.title} {row.client.version}", *cells)
    Console(width=WIDTH).print(table)
    for row in rows:
        for failed in row.failed:
            print(f"{row.client.title}: {failed}")
        if row.left_out:
            print(f"Left out: {row.client.title}: {row.left_out}.")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--within", type=float, help="seconds after which nothing goes on; what is left out is named")
    parser.add_argument("--write", type=Path, help="the page whose tables are written anew")
    parser.add_argument("names", nargs="*")
    known = parser.parse_args()
    deadline = math.inf if known.within is None else time.monotonic() + known.within
    chosen = [one for one in CLIENTS if not known.names or any(name in one.title for name in known.names)]
    if known.within is not None:  # what needs no installation first: more clients are driven in the time
        chosen.sort(key=lambda client: (not is_installed(client), client.title not in FIRST))
    with ThreadPoolExecutor(AT_ONCE) as threads:
        rows = list(threads.map(lambda client: drive(client, deadline), chosen))
    again_until = math.inf if known.within is None else time.monotonic() + RETRY_TIMEOUT
    rows = [once_more(row, again_until) if row.failed else row for row in rows]
    show(rows)
    failed = sum(bool(row.failed) for row in rows)
    left_out = sum(bool(row.left_out) for row in rows)
    if known.write and not failed and not left_out and not known.names:
        write(known.write, rows)
    print(f"{len(rows) - failed - left_out} passed, {failed} failed, {left_out} skipped")
    return 1 if failed or (left_out and known.within is None) else 0


if __name__ == "__main__":
    sys.exit(main())
