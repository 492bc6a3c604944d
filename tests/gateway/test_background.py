"""What runs in the background runs as long as its sandbox, and what that means for the pool."""

from __future__ import annotations

import anyio
import pytest

from agent_task import LIMITS, Task
from gateways import GatewayFactory
from observe import alive, eventually, marker
from taskcell.errors import BadArgument, NoRoom, UnknownProcess
from taskcell.model import ProcessResult, TaskKey

pytestmark = pytest.mark.anyio

KEY = TaskKey("local", "t")
SHORT = LIMITS + 'timeout = "1s"\nmax_timeout = "3s"\n'


async def gone(mark: str) -> bool:
    return await anyio.to_thread.run_sync(eventually, lambda: alive(mark) == [])


def notes(result: ProcessResult) -> str:
    return " ".join(result.notes)


async def test_a_command_in_the_background_has_no_time_out_unless_its_call_gives_one(
    engine: str, gateway: GatewayFactory
) -> None:
    async with gateway(SHORT, engine=engine) as gw:
        task, mark = Task(gw), marker()
        server = await task.terminal(f"sleep {mark}", background=True)
        assert "It goes on as long as its sandbox" in server.notes[0]
        ended = await task.terminal("sleep 60", background=True, timeout=0.5)
        assert "for at most 0.5 s in all" in ended.notes[0]
        assert (await task.ended(ended.process_id)).status.value == "timed_out"
        handed = await task.terminal("sleep 60", wait=0.1)
        assert "for at most 1 s in all" in handed.notes[0]
        assert (await task.ended(handed.process_id)).status.value == "timed_out"
        await anyio.sleep(max(0.0, 3.2 - (await task.ask("poll", server.process_id)).duration_ms / 1000))
        assert (await task.ask("poll", server.process_id)).status.value == "running"
        assert (await task.ask("kill", server.process_id)).status.value == "killed"
        assert alive(mark) == []


async def test_a_longer_time_out_than_the_cap_holds_in_the_background_where_none_is_the_default(
    gateway: GatewayFactory,
) -> None:
    async with gateway(SHORT, engine="local") as gw:
        task = Task(gw)
        started = await task.terminal("sleep 60", background=True, timeout=3600)
        assert "for at most 3600 s in all" in started.notes[0]
        huge = await task.terminal("sleep 60", background=True, timeout=10**400)
        assert "'timeout' was cut to 315360000 s, the most that is allowed." in notes(huge)


async def test_a_time_out_or_wait_over_the_cap_is_cut_and_said(engine: str, gateway: GatewayFactory) -> None:
    async with gateway(SHORT, engine=engine) as gw:
        task = Task(gw)
        cut = await task.terminal("sleep 60", timeout=3601, wait=3600)
        assert cut.status.value == "timed_out"
        assert "'timeout' was cut to 3 s, the most that is allowed." in notes(cut)
        assert "'wait' was cut to 3 s, the most that is allowed." in notes(cut)
        assert "It reached its timeout of 3 s" in notes(cut)
        server = await task.terminal("sleep 60", background=True)
        waited = await task.ask("wait", server.process_id, wait=10**6)
        assert waited.status.value == "running"
        assert "'wait' was cut to 3 s, the most that is allowed." in notes(waited)
        assert "was cut" not in notes(await task.terminal("true", timeout=3, wait=3))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"timeout": 0}, "'timeout' must be more than 0 seconds; leave it out for the default."),
        ({"timeout": 0, "background": True}, "'timeout' must be more than 0 seconds"),
        ({"timeout": -1}, "'timeout' must be at least 0"),
        ({"timeout": float("nan")}, "'timeout' must be a finite number of seconds"),
        ({"timeout": float("inf")}, "'timeout' must be a finite number of seconds"),
        ({"wait": -0.1}, "'wait' must be at least 0"),
        ({"wait": float("nan")}, "'wait' must be a finite number of seconds"),
    ],
)
async def test_what_is_no_duration_is_refused(gateway: GatewayFactory, arguments: dict, says: str) -> None:
    async with gateway(SHORT, engine="local") as gw:
        with pytest.raises(BadArgument, match=says):
            await Task(gw).terminal("true", **arguments)
        if "wait" in arguments:
            with pytest.raises(BadArgument, match=says):
                await Task(gw).process("wait", "p1", **arguments)


async def test_a_task_with_a_server_is_not_idle(engine: str, gateway: GatewayFactory) -> None:
    async with gateway(LIMITS + '[pool]\nidle_ttl = "1s"\nwarm = 0\n', engine=engine) as gw:
        task, mark = Task(gw), marker()
        server = await task.terminal(f"sleep {mark}", background=True)
        await anyio.sleep(3.5)
        assert (await task.ask("poll", server.process_id)).status.value == "running"
        await task.ask("kill", server.process_id)
        assert len(await gw.pool.of_task(KEY)) == 1
        with anyio.fail_after(20):
            while await gw.pool.of_task(KEY):
                await anyio.sleep(0.1)


async def test_a_call_about_a_process_is_a_call_so_that_its_sandbox_is_not_idle(gateway: GatewayFactory) -> None:
    async with gateway(LIMITS + '[pool]\nidle_ttl = "3s"\nwarm = 0\n', engine="local") as gw:
        task = Task(gw)
        await task.terminal("echo kept")
        for _ in range(9):
            await anyio.sleep(0.4)
            assert (await task.ask("poll", "p1")).stdout == "kept\n"


FULL = LIMITS + '[pool]\nmax_sandboxes = 2\nwarm = 0\nacquire_timeout = "1s"\n'


async def test_a_full_pool_ends_an_idle_sandbox_first_and_then_a_server_and_both_tasks_hear_of_it(
    engine: str, gateway: GatewayFactory
) -> None:
    async with gateway(FULL, engine=engine) as gw:
        serves, idle, new, last = (Task(gw, task=name) for name in ("serves", "idle", "new", "last"))
        mark = marker()
        await serves.terminal(f"sleep {mark}", background=True)
        await idle.terminal("true")
        first = await new.terminal("sleep 60", background=True, timeout=50)
        assert "To make room" not in notes(first)
        assert alive(mark) != []
        second = await last.terminal("sleep 60", wait=0.1, timeout=50)
        assert f"the sandbox of your task 'serves' was closed, and with it p1 ('sleep {mark}')." in notes(second)
        assert await gone(mark)
        # What has a time-out is waited for: it makes no room.
        with pytest.raises(NoRoom, match=r"2 by your tasks \('last', 'new'\)"):
            await serves.terminal("true")
        await last.ask("kill", "p1")
        again = await serves.terminal("true")
        assert "was closed to make room for another task's" in notes(again)
        assert f"With the task's sandbox ended what still ran in it: p1 ('sleep {mark}')." in notes(again)
        with pytest.raises(UnknownProcess):
            await serves.ask("poll", "p1")
        assert "ended what still ran" not in notes(await serves.terminal("true"))


async def test_what_a_command_left_behind_is_named_when_it_makes_room(gateway: GatewayFactory) -> None:
    # A call that has just ended may have left nothing: that is waited for.
    async with gateway(FULL.replace("= 2", "= 1").replace('timeout = "1s"', 'timeout = "20s"'), engine="local") as gw:
        first, second, mark = Task(gw, task="one"), Task(gw, task="two"), marker()
        await first.terminal(f"setsid sleep {mark} >/dev/null 2>&1 &")
        answered = await second.terminal("true")
        assert "your task 'one' was closed, and with it p1 ('setsid sleep" in notes(answered)
        assert await gone(mark)


async def test_another_principal_is_not_told_what_made_room(gateway: GatewayFactory) -> None:
    async with gateway(FULL, engine="local") as gw:
        for name in ("one", "two"):
            await Task(gw, "alice", name).terminal("sleep 60", background=True)
        answered = await Task(gw, "bob", "mine").terminal("true")
        assert answered.notes == ()
        heard = [notes(await Task(gw, "alice", name).terminal("true")) for name in ("two",)]
        assert "bob" not in " ".join(heard)
        assert "mine" not in " ".join(heard)


async def test_a_call_that_waits_for_a_server_keeps_its_sandbox(gateway: GatewayFactory) -> None:
    async with gateway(FULL.replace("= 2", "= 1"), engine="local") as gw:
        serves, other = Task(gw, task="serves"), Task(gw, task="other")
        started = await serves.terminal("sleep 600", background=True)
        async with anyio.create_task_group() as group:
            group.start_soon(lambda: serves.ask("wait", started.process_id, wait=30))
            await anyio.sleep(0.2)
            with pytest.raises(NoRoom):
                await other.terminal("true")
            group.cancel_scope.cancel()
        await other.terminal("true")
