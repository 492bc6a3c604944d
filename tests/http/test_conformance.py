"""The server scenarios of MCP's conformance suite, and the list of what is expected to fail, held both ways.

The server has tools under the names that scenarios call, as far as a skill can be what they want.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import anyio
import pytest

from http_serving import HttpServer, serving_http

pytestmark = pytest.mark.conformance

ROOT = Path(__file__).parent.parent.parent
NODE = ROOT / ".cache/conformance/node_modules"
FILES = Path(__file__).parent / "conformance"
REVISIONS = ("2025-11-25", "2026-07-28")
#: Seconds for all scenarios of a revision, which take half a minute, and what a scenario may take, in milliseconds.
PATIENCE, SCENARIO_PATIENCE = 400.0, "60000"
#: How often scenarios run whose result is not the expected one: some wait only 0.5 s for an answer, whatever the load.
ATTEMPTS = 4
FAILED = ("FAILURE", "WARNING")


@dataclass(frozen=True)
class Check:
    """One check of a scenario, as the suite reports it."""

    scenario: str
    name: str
    status: str
    error: str

    def __str__(self) -> str:
        return f"{self.scenario}: {self.name}: {self.status} {self.error}"


def expected() -> frozenset[str]:
    """The names of the checks that are expected to fail."""
    table = tomllib.loads((FILES / "expected.toml").read_text(encoding="utf-8"))
    assert all(entry["reason"] for entry in table["expected"])
    return frozenset(check for entry in table["expected"] for check in entry["checks"])


@contextmanager
def served() -> Iterator[HttpServer]:
    with TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copy(FILES / "skills.toml", folder)
        with serving_http(folder, (FILES / "taskcell.toml").read_text(encoding="utf-8")) as server:
            yield server


async def prepare(server: HttpServer) -> None:
    """Give the caller's task a file, which becomes a resource, and start the skills' sandbox."""
    async with server.client() as client:
        await client.call_tool("write_file", {"path": "note.txt", "content": "a note\n"})
        await client.call_tool("test_simple_text", {})


def run(server: HttpServer, *options: str) -> list[Check]:
    with TemporaryDirectory() as results:
        suite = NODE / "@modelcontextprotocol/conformance/dist/index.js"
        options = (*options, "--timeout", SCENARIO_PATIENCE, "--output-dir", results)
        done = subprocess.run(
            [NODE / ".bin/node", suite, "server", "--url", f"{server.url}/mcp", *options],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE, check=False,
        )  # fmt: skip
        found = [check for file in Path(results).glob("*/checks.json") for check in read(file)]
        assert found, done.stdout + done.stderr
        return found


def read(file: Path) -> Iterator[Check]:
    # The folder is `server-SCENARIO-TIME`; the time is 24 characters long.
    scenario = file.parent.name.removeprefix("server-")[:-25]
    for check in json.loads(file.read_text(encoding="utf-8")):
        yield Check(scenario, check["id"], check["status"], check.get("errorMessage", ""))


def unexpected(checks: list[Check]) -> list[Check]:
    """The checks that fail and should not, and those that should fail and do not."""
    return [check for check in checks if (check.status in FAILED) != (check.name in expected())]


@cache
def checks_of(revision: str) -> list[Check]:
    with served() as server:
        anyio.run(prepare, server)
        checks = run(server, "--requirements", revision)
        for _ in range(ATTEMPTS - 1):
            again = {check.scenario for check in unexpected(checks)}
            checks = [check for check in checks if check.scenario not in again]
            for scenario in sorted(again):
                checks += run(server, "--scenario", scenario, "--spec-version", revision, "--force")
        return checks


@pytest.fixture(scope="module", autouse=True)
def installed() -> None:
    assert NODE.is_dir(), "run `make test-conformance`, which installs the suite"


@pytest.mark.parametrize("revision", REVISIONS)
def test_every_check_of_the_suite_passes_or_is_listed_with_its_reason(revision: str) -> None:
    assert "\n".join(map(str, unexpected(checks_of(revision)))) == ""
    assert sum(check.status == "SUCCESS" for check in checks_of(revision)) >= 50


def test_no_check_is_listed_that_the_suite_does_not_make() -> None:
    made = {check.name for revision in REVISIONS for check in checks_of(revision)}
    assert expected() - made == frozenset()
