"""What the pool does by itself, between calls."""

from __future__ import annotations

import anyio
import pytest
from structlog.testing import capture_logs

from agent_task import Task
from gateways import GatewayFactory
from taskcell.errors import EngineError
from taskcell.pool import upkeep

pytestmark = pytest.mark.anyio

#: The local engine makes no sandbox with sudo.
TOML = "manifests = []\n[terminal]\nsudo = true\n[policy]\nallow_sudo = true\n[pool]\nwarm = 1\n"
#: Seconds for ten tries that take milliseconds each.
PATIENCE = 60.0


async def test_that_no_sandbox_can_be_made_ready_is_logged_once(
    gateway: GatewayFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TICK", "WARM_RETRY", "WARM_DELAY"):
        monkeypatch.setattr(upkeep, name, 0.01)
    tries: list[float] = []
    enough = anyio.Event()
    async with gateway(TOML, engine="local", warm=1) as gw:
        next_warm = gw.pool.slots.next_warm

        def counted(now: float) -> list[object]:
            steps = next_warm(now)
            tries.extend([now] * len(steps))
            if len(tries) >= 10:
                enough.set()
            return steps

        monkeypatch.setattr(gw.pool.slots, "next_warm", counted)
        with capture_logs() as logs, anyio.fail_after(PATIENCE):
            with pytest.raises(EngineError, match="no sudo"):
                await Task(gw).terminal("true")
            await enough.wait()
    said = [entry for entry in logs if entry["event"] == "no sandbox could be made ready for the next task"]
    assert len(said) == 1
