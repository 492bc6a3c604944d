"""Runs one suite on each container engine, prints what held, and removes everything.

`python tests/engines/run.py [--within SECONDS] [--write PAGE] [NAME...]`. Each engine stands in a mount namespace where
the default engine's socket is, so that tests find it like any other.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as XML

TESTS = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TESTS / "support"))

from engines import ENGINES, NOT_HERE, ROOT, VARIABLE, RunningEngine, UnderTest  # noqa: E402

IMAGE = "taskcell/base:latest"
SOCKET = Path("/var/run/docker.sock").resolve()
#: The contract of engines; who a sandbox's files belong to; what a sandbox is; what only these tests ask.
SUITE = (
    "tests/engines/test_engine.py",
    "tests/engine/test_contract.py",
    "tests/engine/test_workspace_owner.py",
    "tests/engine/test_hardening.py",
)
#: Seconds for one engine's tests; gVisor, the slowest, takes six minutes on two cores that others use as well.
TEST_TIMEOUT = 900
#: Marks in a page between which the table stands.
BEGIN, END = "<!-- engines: begin -->", "<!-- engines: end -->"
#: Columns of prose.
WIDTH = 120
NO_TIME = "no time was left"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one engine's tests. `fault`: why they did not run; `failed`: names of tests."""

    engine: UnderTest
    version: str = ""
    passed: int = 0
    failed: tuple[str, ...] = ()
    fault: str = ""


def tests_on(running: RunningEngine) -> Outcome:
    """Run the suite on an engine that has its image."""
    engine = running.engine
    client = running.api()
    version = str(client.version()["Version"])
    client.close()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        words = " and ".join(["not local", *(f"not {part}" for part in engine.left_out)])
        # What cannot bound a sandbox refuses every profile: there is nothing to hold but that.
        paths = SUITE if engine.bounds else SUITE[:1]
        tests = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "engine or engines", "-k", words]
        argv = [
            "unshare",
            "--mount",
            "sh",
            "-c",
            'mount --bind "$0" "$1" && shift && exec "$@"',
            running.socket,
            SOCKET,
        ]
        environ = {**os.environ, VARIABLE: engine.name}
        try:
            done = subprocess.run(
                [*argv, *tests, f"--junitxml={report}", *paths],
                cwd=ROOT,
                env=environ,
                timeout=TEST_TIMEOUT,
                check=False,
                capture_output=True,
                text=True,
            )
        except subprocess.TimeoutExpired:
            return Outcome(engine, version, fault=f"its tests took longer than {TEST_TIMEOUT} s")
        if not report.exists():
            return Outcome(engine, version, fault=f"pytest said: {done.stdout[-500:]}{done.stderr[-500:]}")
        cases = list(XML.parse(report).iter("testcase"))
        if done.returncode:
            print(done.stdout[-6000:])
    failed = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
    skipped = sum(case.find("skipped") is not None for case in cases)
    return Outcome(engine, version, len(cases) - len(failed) - skipped, tuple(str(case.get("name")) for case in failed))


def outcome_on(engine: UnderTest, image: Path) -> Outcome:
    if subprocess.run([ROOT / "scripts/engines.sh", engine.suite], check=False).returncode:
        return Outcome(engine, fault=f"Debian's {engine.suite} could not be unpacked")
    running = RunningEngine(engine)
    try:
        running.start()
        running.load(image)
        return tests_on(running)
    except AssertionError as error:
        return Outcome(engine, fault=f"it did not start: {' '.join(str(error).split())[-300:]}")
    finally:
        running.stop()


def row(outcome: Outcome) -> str:
    tests = len(outcome.failed) + outcome.passed
    held = outcome.fault or (f"all {tests} hold" if not outcome.failed else f"{outcome.passed} of {tests} hold")
    return f"| {outcome.engine.name} | {outcome.version} | {held} | {outcome.engine.differs} |"


def table(rows: Sequence[str]) -> str:
    lines = ["| engine | version | its tests | what differs |", "| --- | --- | --- | --- |", *rows]
    lines += ["", "Not run on that machine:", ""]
    told = (f"- {name}: {reason}." for name, reason in NOT_HERE.items())
    wrapped = (textwrap.wrap(one, WIDTH, subsequent_indent="  ") for one in told)
    return "\n".join([*lines, *(line for lines in wrapped for line in lines)])


def write(page: Path, outcomes: Sequence[Outcome]) -> None:
    """Put new rows into the page's table. Engines that did not run keep the rows that they have."""
    before, _, rest = page.read_text("utf-8").partition(BEGIN)
    old, _, after = rest.partition(END)
    rows = {line.split(" | ")[0].removeprefix("| "): line for line in old.splitlines() if line.startswith("| ")}
    rows |= {outcome.engine.name: row(outcome) for outcome in outcomes}
    text = table([rows[engine.name] for engine in ENGINES if engine.name in rows])
    page.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}", "utf-8")


def is_meant(engine: str, names: Sequence[str]) -> bool:
    """Whether an engine is named, or begins with a word that is not another one's name."""
    whole = {one.name for one in ENGINES}
    return any(engine == name or (name not in whole and engine.startswith(name)) for name in names)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--within", type=float, help="seconds after which no other engine begins")
    parser.add_argument("--write", type=Path, help="the page with the table, where the engines' rows are written")
    parser.add_argument("names", nargs="*", help="of engines, or what they begin with; all are run where none is named")
    said = parser.parse_args()
    chosen = [one for one in ENGINES if not said.names or is_meant(one.name, said.names)]
    deadline = None if said.within is None else time.monotonic() + said.within
    outcomes, left = [], []
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder) / "image.tar"
        subprocess.run(["docker", "save", "--output", image, IMAGE], check=True)
        for engine in chosen:
            if deadline is not None and time.monotonic() > deadline:
                left.append(engine.name)
                continue
            print(f"==> {engine.name}", flush=True)
            outcomes.append(outcome_on(engine, image))
            print(row(outcomes[-1]), *outcomes[-1].failed, sep="\n  ", flush=True)
            if said.write:
                write(said.write, outcomes)
    for name in left:
        print(f"{name}: {NO_TIME}")
    print(table([row(outcome) for outcome in outcomes]))
    return int(any(outcome.failed or outcome.fault for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
