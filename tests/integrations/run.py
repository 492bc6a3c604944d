"""Tries each adapter in its framework, beside the framework's own backend with Docker, and prints a table.

`python tests/integrations/run.py [--within SECONDS] [--write PAGE] [NAME…]`: a NAME is that of an extra. With
`--within` the adapters alone are tried, nothing more begins after so many seconds, and what is left out is named.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[2]
SUITES = Path(__file__).parent / "suites"
HOME = ROOT / ".cache" / "integrations"
BEGIN = '<!-- made by `make test-frameworks FRAMEWORKS_ARGS="--write docs/frameworks.md"` -->'
END = "<!-- end -->"
#: docker's configuration folder with Compose, which `scripts/compose.sh` makes where docker has none itself.
COMPOSE_HOME = HOME / "compose"
FIGURES = ("a call", "alive after a time-out", "bytes exact")
#: Inspect's own check of what its provider needs.
_PREREQUISITES = "inspect_ai.util._sandbox.docker.prereqs"
INSPECT_DOCKER = f"import asyncio; from {_PREREQUISITES} import validate_prereqs; asyncio.run(validate_prereqs())"
CONFIGURATION = """
manifests = []
[pool]
on_exit = "close"
acquire_timeout = "2m"
[policy]
allow_sudo = true
task_users = ["nobody"]
allowed_capabilities = ["DAC_OVERRIDE", "FSETID"]
allowed_mount_roots = ["{shared}"]
[environments.sudo]
sudo = true
read_only = false
cap_add = ["DAC_OVERRIDE", "FSETID"]
[environments.openhands]
image = "taskcell-test/openhands:latest"
[environments.shared]
volumes = ["{shared}:{shared}"]
"""
#: Seconds for one suite, which takes a minute or two on an idle machine.
SUITE_TIMEOUT = 900
#: Seconds to install a framework on a slow line, and OpenHands' image with it.
INSTALL_TIMEOUT = 600
#: Seconds to remove what a server left that was killed.
REMOVE_TIMEOUT = 120


@dataclass(frozen=True)
class Framework:
    """One adapter.

    Arguments:
        module: what its suite, its example and itself are called.
        package: whose version the page shows.
        profiles: more backends of the suite, which are the adapter with another environment of the configuration.
        needs_compose: its own backend needs Compose 2.
        needs: a program of Python that fails where its own backend cannot run, such as on an older Docker Engine.
        is_apart: it has the client without the server, which is started from another environment.
        examples: more of them, which are given the server's program as well.
    """

    title: str
    extra: str
    module: str
    package: str
    profiles: tuple[str, ...] = ()
    needs_compose: bool = False
    needs: str = ""
    is_apart: bool = False
    examples: tuple[str, ...] = ()

    @property
    def backends(self) -> tuple[str, ...]:
        """What the suite is run on: the adapter, its other profiles, and the framework's own where it can run."""
        words = (self.python, "-c", self.needs)
        has_docker = not subprocess.run(words, env=self.environ, capture_output=True, check=False).returncode
        return ("taskcell", *self.profiles, *(("docker",) if has_docker else ()))

    @property
    def environ(self) -> dict[str, str]:
        """The variables of this process, and where docker finds Compose."""
        has_own = self.needs_compose and COMPOSE_HOME.is_dir()
        return {**os.environ, **({"DOCKER_CONFIG": str(COMPOSE_HOME)} if has_own else {})}

    @property
    def python(self) -> str:
        return str(HOME / self.extra / "bin" / "python")


FRAMEWORKS = (
    Framework("mini-swe-agent", "mini-swe-agent", "mini_swe_agent", "mini-swe-agent"),
    Framework("deepagents", "deepagents", "deep_agents", "deepagents", needs="import deepagents_docker"),
    Framework("SWE-ReX", "swe-rex", "swe_rex", "swe-rex"),
    Framework(
        "Inspect", "inspect", "inspect_sandbox", "inspect_ai", ("sudo",), needs_compose=True, needs=INSPECT_DOCKER
    ),
    Framework("OpenHands", "openhands", "open_hands", "openhands-sdk", is_apart=True, examples=("open_hands_mcp",)),
)


@dataclass
class Score:
    """What a suite showed of one backend: the names of the cases, and figures.

    Arguments:
        passed: cases of those that are counted. Others are about the adapter alone.
        failed: of all.
    """

    counted: set[str] = field(default_factory=set)
    passed: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    figures: dict[str, str] = field(default_factory=dict)

    def row(self, counted: set[str]) -> list[str]:
        """Return the cells of the table."""
        cases = f"{len(counted.intersection(self.passed))} of {len(counted)}"
        return [cases, *(self.figures.get(name, "has none") for name in FIGURES)]


class Clock:
    """How long things may still begin.

    Arguments:
        within: seconds; None: without end.
    """

    def __init__(self, within: float | None) -> None:
        self.is_bounded = within is not None
        self._end = time.monotonic() + (within or 0)
        self.left_out: list[str] = []

    def has_time(self, what: str) -> bool:
        """Whether something may begin; if not, it is noted as left out."""
        may = not self.is_bounded or time.monotonic() < self._end
        if not may:
            self.left_out.append(what)
        return may


def bounded(words: list[str], seconds: float, **more: Any) -> subprocess.CompletedProcess[str]:
    """Run a command with its output kept. One that takes too long has failed, and says so."""
    try:
        return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=seconds, check=False, **more)
    except subprocess.TimeoutExpired as error:
        said = error.stdout.decode(errors="replace") if isinstance(error.stdout, bytes) else error.stdout or ""
        return subprocess.CompletedProcess(words, 124, said, f"This took more than {seconds:g} seconds: {words}")


def try_suite(framework: Framework, backend: str, folder: Path, environ: dict[str, str]) -> Score:
    """Run a framework's suite on a backend."""
    report = folder / f"{backend}.xml"
    suite = str(SUITES / f"{framework.module}.py")
    words = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:asyncio", "--disable-warnings"]
    # What the suites of this project share needs the server's packages.
    words += ["--noconftest"] if framework.is_apart else []
    words += ["-o", "anyio_mode=auto", "-o", "junit_family=xunit1", f"--junitxml={report}", suite]
    done = bounded([framework.python, *words], SUITE_TIMEOUT, env={**environ, "FRAMEWORK_BACKEND": backend})
    score = read_report(report) if report.exists() else Score(failed=["the suite did not run"])
    if backend != "docker" and (score.failed or done.returncode):
        print(done.stdout, done.stderr, file=sys.stderr)
        score.failed = score.failed or ["the suite broke"]
    return score


def read_report(report: Path) -> Score:
    """Return what a report of pytest in JUnit's form says."""
    score = Score()
    for case in ElementTree.parse(report).iter("testcase"):
        said = {str(found.get("name")): str(found.get("value")) for found in case.iter("property")}
        is_counted = said.pop("not counted", None) is None
        score.figures.update(said)
        name, skipped = str(case.get("name")), case.find("skipped")
        has_failed = case.find("failure") is not None or case.find("error") is not None
        if has_failed:
            score.failed.append(name)
        if not is_counted or (skipped is not None and skipped.get("type") != "pytest.xfail"):
            continue
        score.counted.add(name)
        if not has_failed and skipped is None:
            score.passed.append(name)
    return score


def check_beside(framework: Framework, environ: dict[str, str]) -> list[str]:
    """Check the adapter's types against the framework's, and run its example. Return what failed."""
    module, config = framework.module, environ["FRAMEWORK_CONFIG"]
    mypy = [sys.executable, "-m", "mypy", "--python-executable", framework.python]
    checks = {"its types": [*mypy, "-m", f"taskcell.integrations.{module}"]}
    program = ["--program", environ["FRAMEWORK_TASKCELL"]] if framework.is_apart else []
    for name in (module, *framework.examples):
        checks[f"its example {name}"] = [framework.python, f"examples/{name}.py", "--config", config, *program]
    failed = []
    for name, words in checks.items():
        done = bounded(words, SUITE_TIMEOUT, env=environ)
        if done.returncode:
            print(done.stdout, done.stderr, file=sys.stderr)
            failed.append(name)
    return failed


def try_framework(framework: Framework, clock: Clock) -> tuple[dict[str, Score], list[str]]:
    """Install a framework, and return what its backends score, and what failed of the adapter."""
    wanted = [["scripts/integrations.sh", framework.extra]]
    wanted += [["scripts/compose.sh"]] if framework.needs_compose and not clock.is_bounded else []
    for words in wanted:
        installing = bounded(words, INSTALL_TIMEOUT)
        print(installing.stdout, end="", flush=True)
        if installing.returncode:
            print(installing.stderr, file=sys.stderr)
            return {}, ["it could not be installed"]
    with tempfile.TemporaryDirectory(prefix="taskcell-frameworks-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        environ = {**framework.environ, **configured(folder)}
        scores = {}
        try:
            for backend in framework.backends:
                if backend == "docker" and clock.is_bounded:
                    clock.left_out.append(f"{framework.title}'s own backend")
                elif clock.has_time(f"{framework.title} on {backend}"):
                    scores[backend] = try_suite(framework, backend, folder, environ)
            failed = [f"{backend}: {name}" for backend, found in scores.items() for name in found.failed]
            failed = [name for name in failed if not name.startswith("docker")]
            if clock.has_time(f"{framework.title}'s types and example"):
                failed += check_beside(framework, environ)
            return scores, failed
        finally:
            config = environ["FRAMEWORK_CONFIG"]
            remove = [sys.executable, "-m", "taskcell", "rm", "--all", "--config", config]
            bounded(remove, REMOVE_TIMEOUT, env=environ)


def configured(folder: Path) -> dict[str, str]:
    """Write the servers' configuration into a folder, and return the variables that what is run gets beside its own."""
    shared = folder / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    folder.chmod(0o755)
    config = folder / "taskcell.toml"
    config.write_text(f'deployment = "{folder.name}"\n{CONFIGURATION.format(shared=shared)}')
    return {
        "FRAMEWORK_CONFIG": str(config),
        "FRAMEWORK_SHARED": str(shared),
        "FRAMEWORK_TASKCELL": str(Path(sys.executable).with_name("taskcell")),
        "XDG_STATE_HOME": str(folder / "state"),
        "XDG_CONFIG_HOME": str(folder / "config"),
        "MSWEA_SILENT_STARTUP": "1",
        # Frameworks that have litellm ask the network for its prices else, three times.
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    }


def version(framework: Framework) -> str:
    code = f"from importlib.metadata import version; print(version({framework.package!r}))"
    return subprocess.run([framework.python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def rows_of(framework: Framework, scores: dict[str, Score]) -> list[list[str]]:
    """Return the rows of the table. The framework's own backend says which cases count, where it was tried."""
    if not scores:
        return []
    title = f"{framework.title} {version(framework)}"
    compared = scores.get("docker") or scores["taskcell"]
    return [[title, backend, *score.row(compared.counted)] for backend, score in scores.items()]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--within", type=float, help="seconds after which nothing more begins")
    parser.add_argument("--write", type=Path, help="the page whose table is written anew")
    parser.add_argument("names", nargs="*")
    known = parser.parse_args()
    clock, rows, broken = Clock(known.within), [], []
    for framework in FRAMEWORKS:
        if (known.names and framework.extra not in known.names) or not clock.has_time(framework.title):
            continue
        begun = time.monotonic()
        scores, failed = try_framework(framework, clock)
        print(f"{framework.title}: {time.monotonic() - begun:.0f} s")
        broken += [f"{framework.title}: {what}" for what in failed]
        rows += rows_of(framework, scores)
        for name in scores.get("docker", Score()).failed:
            print(f"{framework.title}'s own backend fails: {name}")
    header = ["framework", "backend", "cases", *FIGURES]
    table = Table(*header)
    for row in rows:
        table.add_row(*row)
    Console(width=120).print(table)
    print(*broken, *(f"left out: {what}" for what in clock.left_out), sep="\n")
    if known.write and not broken and not known.names and not clock.left_out:
        lines = ["| " + " | ".join(row) + " |" for row in (header, ["---"] * len(header), *rows)]
        before, rest = known.write.read_text(encoding="utf-8").split(BEGIN)
        text = f"{before}{BEGIN}\n\n" + "\n".join(lines) + f"\n\n{END}{rest.split(END, 1)[1]}"
        known.write.write_text(text, encoding="utf-8")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
