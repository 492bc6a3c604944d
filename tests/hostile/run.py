"""Runs every attack on an engine of its own, prints what held, and removes everything.

`python tests/hostile/run.py [--within SECONDS]`. The engine has a network namespace of its own and bounded memory, and
stands in a mount namespace where the default engine's socket is: so tests find it like any other.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

import docker
import pytest
from rich.console import Console
from rich.table import Table

TESTS = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TESTS / "support"))

from attacks import ATTACKS, Attack  # noqa: E402
from second_engine import SecondEngine  # noqa: E402

IMAGE = "taskcell/base:latest"
#: Bytes for the engine itself, without its containers: ten times what it takes.
ENGINE_MEMORY = 2 << 30
#: Columns: as wide as code here.
WIDTH = 120
NO_TIME = "no time was left"
#: As many tests that failed are run once more, alone: a machine that is busy with something else is no attack.
RUN_AGAIN_AT_MOST = 3


class Ledger:
    """What became of each test.

    Arguments:
        within: seconds after which no other test begins; None: all run.
    """

    def __init__(self, within: float | None) -> None:
        self._deadline = None if within is None else time.monotonic() + within
        self.outcomes: dict[str, str] = {}
        self.seconds: dict[str, float] = defaultdict(float)
        self.figures: dict[str, list[str]] = defaultdict(list)
        self.reasons: dict[str, str] = {}

    def pytest_runtest_setup(self) -> None:
        if self._deadline is not None and time.monotonic() > self._deadline:
            pytest.skip(NO_TIME)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        name = report.nodeid.removeprefix("tests/")
        self.seconds[name] += report.duration
        if self.outcomes.get(name) != "failed" and (report.when == "call" or report.outcome != "passed"):
            self.outcomes[name] = report.outcome
        if report.skipped and isinstance(report.longrepr, tuple):
            self.reasons[name] = report.longrepr[2].removeprefix("Skipped: ")
        if report.when == "call":
            self.figures[name] += [str(value) for key, value in report.user_properties if key == "figure"]

    def begin_again(self) -> list[str]:
        """The tests that failed, which shall run once more, whatever time is left; none where they are too many."""
        failed = [name for name, outcome in self.outcomes.items() if outcome == "failed"]
        if len(failed) > RUN_AGAIN_AT_MOST:
            return []
        self._deadline = None
        for name in failed:
            del self.outcomes[name]
            self.figures[name] = ["at the second try"]
        return failed

    def row(self, attack: Attack) -> tuple[str, str]:
        """Whether what should hold held, and the figure."""
        names = [name for name in self.outcomes if name.startswith(attack.tests)]
        failed = [name for name in names if self.outcomes[name] == "failed"]
        ran = [name for name in names if self.outcomes[name] == "passed"]
        left = len(names) - len(failed) - len(ran)
        figures = [figure for name in ran for figure in self.figures[name]]
        figures.append(f"{len(ran) + len(failed)} tests, {sum(self.seconds[name] for name in names):.0f} s")
        if left:
            reasons = sorted({self.reasons.get(name, "") for name in names} - {""})
            figures.append(f"{left} left out: {'; '.join(reasons)}")
        if failed:
            return "DID NOT HOLD", "; ".join([*figures, *failed])
        return ("held" if ran else "left out"), "; ".join(figures)


class Selection:
    """Which tests run, and in which order.

    A bound of time shall leave out what `make test` runs too, and few attacks as a whole. So this suite's own come
    first, but for images and a flood that take a minute each, and then one test of each attack.

    Arguments:
        is_bounded: there is such a bound.
    """

    def __init__(self, *, is_bounded: bool) -> None:
        self._is_bounded = is_bounded

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        turns: dict[str, int] = {}
        for one in ATTACKS:
            names = [item.nodeid for item in items if item.nodeid.removeprefix("tests/").startswith(one.tests)]
            for index, name in enumerate(names):
                is_slow = ("list_of_users_never_ends" in name and index > 0) or "ten_thousand_forwarded" in name
                is_own = "/hostile/" in name
                turn = len(items) if is_slow else 0 if is_own else index + 1
                turns[name] = min(turns.get(name, turn), turn) if self._is_bounded else 0
        config.hook.pytest_deselected(items=[item for item in items if item.nodeid not in turns])
        items[:] = sorted((item for item in items if item.nodeid in turns), key=lambda item: turns[item.nodeid])


def attack(within: float | None, arguments: list[str]) -> int:
    """Run the tests, print the table, and return the exit code."""
    ledger = Ledger(within)
    names = [f"{TESTS}/{test.partition('::')[0]}" for one in ATTACKS for test in one.tests]
    options = ["-q", "-m", "", "-p", "no:cacheprovider", f"--rootdir={TESTS.parent}", *arguments]
    code = pytest.main([*options, *dict.fromkeys(names)], plugins=[Selection(is_bounded=within is not None), ledger])
    if code == pytest.ExitCode.TESTS_FAILED and (failed := ledger.begin_again()):
        code = pytest.main([*options, *(f"{TESTS}/{name}" for name in failed)], plugins=[ledger])
    table = Table("attack on", "by", "what holds", "", "figure", width=WIDTH)
    rows = [(one, *ledger.row(one)) for one in ATTACKS]
    for one, held, figure in rows:
        table.add_row(one.about, one.tries, one.holds, held, figure)
    Console(width=WIDTH).print(table)
    without = [one.tries for one, held, _ in rows if held == "left out"]
    if without:
        print(f"Left out: {'; '.join(without)}.")
    return int(code)


def with_engine(arguments: list[str]) -> int:
    """Run this program again, in a mount namespace where the default engine's socket is that of a new engine."""
    socket = Path("/var/run/docker.sock").resolve()
    if not socket.is_socket():
        print(f"There is no engine at {socket}, from which the default image could come; `make setup` starts one.")
        return 2
    engine = SecondEngine(memory=ENGINE_MEMORY)
    try:
        engine.start()
        _copy_image(engine)
        inside = f'mount --bind "{engine.folder}/docker.sock" "{socket}" && exec "$0" "$@"'
        again = [sys.executable, __file__, "--inside", *arguments]
        return subprocess.run(["unshare", "--mount", "sh", "-c", inside, *again], check=False).returncode
    finally:
        engine.remove()


def _copy_image(engine: SecondEngine) -> None:
    source, target = docker.APIClient(version="auto"), docker.APIClient(engine.host, version="auto")
    for _ in target.load_image(source.get_image(IMAGE)):
        pass


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--within", type=float, help="seconds after which no other test begins")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    known, others = parser.parse_known_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # the engine is removed all the same
    if known.inside:
        return attack(known.within, others)
    return with_engine(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
