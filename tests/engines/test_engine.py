"""What every engine must do beside the contract: bound a sandbox, say so in doctor, and refuse what it cannot do."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from agent_task import Task
from engines import VARIABLE, under_test
from gateways import GatewayFactory
from taskcell.cli.app import run
from taskcell.errors import EngineError

pytestmark = [pytest.mark.anyio, pytest.mark.engines]
SMALL = 'manifests = []\n[terminal]\nmemory = "256m"\npids = 64\n[workspace]\nsize = "32m"\n'
UNBOUNDED = f"{SMALL}[policy]\nrequire_resource_limits = false\n"


@pytest.fixture(autouse=True)
def only_under_test() -> None:
    assert VARIABLE in os.environ, "`make test-engines` runs this on each engine"


def doctor(tmp_path: Path, toml: str, capfd: pytest.CaptureFixture[str]) -> tuple[int, dict[str, list[dict[str, str]]]]:
    (tmp_path / "taskcell.toml").write_text(toml)
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "XDG_STATE_HOME": str(tmp_path / "state")}
    code = run(["doctor", "--json", "--config", str(tmp_path / "taskcell.toml")], environ=environ, cwd=tmp_path)
    found: dict[str, list[dict[str, str]]] = {}
    for row in json.loads(capfd.readouterr().out):
        found.setdefault(row["status"], []).append(row)
    return code, found


async def test_what_it_does_not_bound_is_refused_unless_the_operator_allows_it(gateway: GatewayFactory) -> None:
    if under_test().bounds:
        async with gateway(SMALL) as gw:
            assert (await Task(gw).terminal("echo works")).stdout == "works\n"
        return
    async with gateway(SMALL) as gw:
        with pytest.raises(EngineError, match="does not bound the memory and the number of processes"):
            await Task(gw).terminal("true")
    async with gateway(UNBOUNDED) as gw:
        result = await Task(gw).terminal("id -u; touch x && stat -c %u x /workspace; umask")
        assert result.stdout == "1000\n1000\n1000\n0022\n"


async def test_a_command_that_needs_too_much_memory_is_told_why_it_ended_and_the_task_goes_on(
    gateway: GatewayFactory,
) -> None:
    if not under_test().bounds:
        return
    async with gateway(SMALL) as gw:
        task = Task(gw)
        result = await task.terminal("echo begun; head -c 600m /dev/zero | tail", wait=None, timeout=120)
        said = " ".join(result.notes)
        if under_test().has_own_kernel:
            assert "needs more memory or more processes than it may" in said
        else:
            assert "memory was used up" in said
        assert (await task.terminal("echo works")).stdout == "works\n"


async def test_no_more_processes_start_than_the_profile_allows(gateway: GatewayFactory) -> None:
    if not under_test().bounds or under_test().has_own_kernel:
        return
    async with gateway(SMALL) as gw:
        task = Task(gw)
        result = await task.terminal("for i in $(seq 100); do sleep 30 & done; kill $(jobs -p)")
        assert "64 processes and threads, as many as it may" in " ".join(result.notes)
        assert (await task.terminal("echo works")).stdout == "works\n"


def test_doctor_is_green_where_limits_hold_and_broken_where_not(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    code, found = doctor(tmp_path, SMALL, capfd)
    if under_test().bounds:
        assert (code, found.get("broken")) == (0, None)
        return
    assert code == 1
    assert "does not bound" in " ".join(row["detail"] for row in found["broken"])
