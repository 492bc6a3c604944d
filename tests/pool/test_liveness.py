"""A sandbox that is not heard any more: found out early where a signal has stopped it, and replaced with its files."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import anyio
import anyio.abc
import pytest

from agent_task import Task
from gateways import GatewayFactory
from observe import HOST_TIMEOUT
from taskcell.engine.base import Container, Standing
from taskcell.engine.local import LocalEngine
from taskcell.errors import EngineUnavailable
from taskcell.gateway.gateway import Gateway
from taskcell.pool.slot import Slot, SlotState
from taskcell.sandbox.sandbox import Sandbox
from taskcell.supervisor import link

pytestmark = pytest.mark.anyio

#: Seconds until a silent supervisor is given up, on a busy machine.
GIVEN_UP = 3 * HOST_TIMEOUT


def supervisor(gw: Gateway) -> anyio.abc.Process:
    (process,) = gw.engine._processes.values()  # type: ignore[attr-defined]
    return process


def current(gw: Gateway) -> Slot:
    (slot,) = gw.pool.slots
    return slot


def sandbox(gw: Gateway) -> Sandbox:
    found = current(gw).sandbox
    assert found is not None
    return found


async def break_stream(of: Sandbox) -> None:
    stream = of.channel._link._stream
    assert stream is not None
    await stream.aclose()


async def until(holds: Callable[[], bool]) -> None:
    with anyio.fail_after(HOST_TIMEOUT):
        while not holds():
            await anyio.sleep(0.02)


async def test_a_supervisor_that_a_signal_stops_is_found_out_and_the_next_call_has_the_files(
    gateway: GatewayFactory,
) -> None:
    async with gateway(engine="local") as gw:
        task = Task(gw)
        await task.terminal("echo kept > file")
        os.kill(supervisor(gw).pid, signal.SIGSTOP)
        with anyio.fail_after(GIVEN_UP):
            lost = await task.terminal("echo never")
            after = await task.terminal("cat file")
        assert lost.status.value == "lost"
        # Had its silence alone spoken, it would be called silent, and fifteen seconds later.
        assert "was stopped by a signal" in lost.notes[0]
        assert after.stdout == "kept\n"


async def test_a_supervisor_that_a_signal_stops_under_a_command_is_found_out(gateway: GatewayFactory) -> None:
    async with gateway(engine="local") as gw:
        task = Task(gw)
        started = await task.terminal("echo begun; sleep 60", background=True)
        os.kill(supervisor(gw).pid, signal.SIGSTOP)
        with anyio.fail_after(GIVEN_UP):
            lost = await task.ask("wait", started.process_id)
        assert lost.status.value == "lost"
        assert "was stopped by a signal" in lost.notes[0]


async def test_a_sandbox_whose_channel_alone_has_ended_is_connected_to_again_with_what_runs_in_it(
    gateway: GatewayFactory,
) -> None:
    async with gateway(engine="local") as gw:
        task = Task(gw)
        await task.terminal("echo kept > file; export A=1")
        started = await task.terminal("echo begun; read word; echo $word", background=True)
        old, first = current(gw), sandbox(gw).container
        await break_stream(sandbox(gw))
        assert (await task.ask("write", started.process_id, data="over\n")).process_id == started.process_id
        ended = await task.ask("wait", started.process_id)
        assert (ended.status.value, ended.stdout) == ("exited", "begun\nover\n")
        after = await task.terminal("cat file; echo $A")
        assert (after.stdout, after.notes) == ("kept\n1\n", ())
        assert current(gw) is old
        assert sandbox(gw).container.id == first.id


async def test_a_call_waits_for_a_sandbox_that_is_away_and_has_another_one_when_that_turns_out_to_be_gone(
    gateway: GatewayFactory,
) -> None:
    async with gateway(engine="local") as gw:
        task, results = Task(gw), list[str]()
        await task.terminal("echo kept > file")
        old, channel = current(gw), sandbox(gw).channel
        path = gw.engine._folder / sandbox(gw).container.id / "s"  # type: ignore[attr-defined]
        path.rename(path.with_name("away"))
        await break_stream(sandbox(gw))
        await until(lambda: channel.is_away)

        async def call() -> None:
            after = await task.terminal("cat file")
            results.extend((after.stdout, *after.notes))

        async with anyio.create_task_group() as calls:
            calls.start_soon(call)
            await until(lambda: bool(old.leases))
            assert channel.is_away
            supervisor(gw).kill()
        assert results[0] == "kept\n"
        assert "still there" in results[1]
        assert current(gw) is not old


async def test_while_the_engine_is_away_for_long_a_call_says_so_and_the_sandbox_is_what_it_was_afterwards(
    gateway: GatewayFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "PATIENCE", 0.5)
    monkeypatch.setattr(link, "LONGEST_PAUSE", 0.1)

    async def does_not_answer(self: LocalEngine, container: Container) -> Standing:
        raise EngineUnavailable("It is away.")

    async with gateway(engine="local") as gw:
        task = Task(gw)
        await task.terminal("echo kept > file; export SEEN=yes; sleep 1000 &")
        old, channel = current(gw), sandbox(gw).channel
        path = gw.engine._folder / sandbox(gw).container.id / "s"  # type: ignore[attr-defined]
        with monkeypatch.context() as away:
            away.setattr(LocalEngine, "standing", does_not_answer)
            path.rename(path.with_name("away"))
            await break_stream(sandbox(gw))
            await until(lambda: channel.is_away)
            with pytest.raises(EngineUnavailable, match="stays there"):
                await task.terminal("echo never >> file")
            path.with_name("away").rename(path)
        await until(lambda: not channel.is_away)
        assert (await task.terminal("cat file; echo $SEEN; jobs -r | wc -l")).stdout == "kept\nyes\n0\n"
        await until(lambda: len(channel.living) == 1)  # what the first call has left
        assert current(gw) is old


async def test_a_sandbox_that_cannot_be_reached_any_more_is_replaced_with_its_files_before_the_next_call(
    gateway: GatewayFactory,
) -> None:
    async with gateway(engine="local") as gw:
        task = Task(gw)
        await task.terminal("echo kept > file")
        old, first = current(gw), sandbox(gw).container
        sandbox(gw).channel.give_up("the test says so")
        await until(lambda: current(gw) is not old and current(gw).state is SlotState.READY)
        assert sandbox(gw).container.id != first.id
        after = await task.terminal("cat file")
        assert after.stdout == "kept\n"
        assert "still there" in after.notes[0]
        await until(lambda: len(gw.engine._processes) == 1)  # type: ignore[attr-defined]


async def test_a_sandbox_that_has_ended_is_not_made_again_before_its_tasks_next_call(gateway: GatewayFactory) -> None:
    async with gateway(engine="local") as gw:
        task = Task(gw)
        await task.terminal("true")
        old, process = current(gw), supervisor(gw)
        process.kill()
        await process.wait()
        liveness = gw.pool._upkeep._liveness
        await until(lambda: old in liveness._lost)
        async with anyio.create_task_group() as asking:
            asking.start_soon(liveness._replace, old, sandbox(gw))
        assert current(gw) is old
        assert (await task.terminal("echo works")).stdout == "works\n"
        assert current(gw) is not old
