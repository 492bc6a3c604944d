"""A supervisor that cannot see its processes does not say that none is left."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent_task import LIMITS, Task
from gateways import GatewayFactory
from observe import alive, eventually, marker

#: As root with CAP_SYS_RESOURCE, bit 24, the supervisor of the local engine puts every limit back.
MAY_RAISE_LIMITS = int(Path("/proc/self/status").read_text().partition("CapEff:")[2].split()[0], 16) >> 24 & 1

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(bool(MAY_RAISE_LIMITS), reason="no limit can be taken from a process that may raise it again"),
]

#: Takes all descriptors from the supervisor, the parent of the leader that is the parent of the shell.
BLIND = "prlimit --pid $(ps -o ppid= -p $PPID) --nofile=0:0; "


async def test_survivors_of_a_kill_that_nobody_could_count_are_null_and_cost_the_sandbox(
    gateway: GatewayFactory,
) -> None:
    mark = marker()
    async with gateway(LIMITS, engine="local") as gw:
        task = Task(gw)
        result = await task.terminal(f"{BLIND}setsid sleep {mark} & sleep {mark}", timeout=1)
        assert (result.status.value, result.survivors) == ("timed_out", None)
        assert result.structured()["survivors"] is None
        assert "could not find out whether all processes of the command are dead" in " ".join(result.notes)
        assert not any("with everything that it started" in note for note in result.notes)
        assert (await task.terminal("echo works")).stdout == "works\n"
        assert eventually(lambda: not alive(mark))


async def test_a_command_whose_descendants_nobody_could_count_says_so(gateway: GatewayFactory) -> None:
    mark = marker()
    async with gateway(LIMITS, engine="local") as gw:
        task = Task(gw)
        result = await task.terminal(f"{BLIND}setsid sleep {mark} & exit 3")
        assert (result.status.value, result.exit_code, result.survivors) == ("exited", 3, 0)
        assert "The sandbox could not find out whether processes that it started still run." in result.notes
        assert (await task.terminal("echo works")).stdout == "works\n"
        assert eventually(lambda: not alive(mark))
