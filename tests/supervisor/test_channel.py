"""Questions to a supervisor that concern no single process: each gets its own answer."""

from __future__ import annotations

import anyio
import pytest

from agent_task import LIMITS, Task
from gateways import GatewayFactory
from taskcell.errors import SandboxLost
from taskcell.model import TaskKey
from taskcell.sandbox.sandbox import Sandbox
from taskcell.supervisor import events, protocol, requests
from taskcell.supervisor.channel import ANSWER_TIMEOUT, Channel

pytestmark = pytest.mark.anyio


async def sandbox_of(task: Task) -> Sandbox:
    (sandbox,) = await task.gateway.pool.sandboxes(TaskKey("local", "t"))
    return sandbox


async def listed(channel: Channel, seconds: float = ANSWER_TIMEOUT) -> list[protocol.ProcessState]:
    parts = await channel.ask(requests.list_processes(), events.Listing, seconds)
    return [entry.state for part in parts for entry in part.entries]


async def test_many_questions_at_once_are_each_answered(gateway: GatewayFactory) -> None:
    async with gateway(LIMITS, engine="local") as gw:
        task = Task(gw)
        await task.terminal("sleep 60", background=True)
        channel = (await sandbox_of(task)).channel
        answers: list[object] = []

        async def ask() -> None:
            answers.append(await listed(channel))
            (state,) = await channel.ask(requests.state(), events.LastState, ANSWER_TIMEOUT)
            answers.append(state.report)
            await channel.ping()

        async with anyio.create_task_group() as asking:
            for _ in range(20):
                asking.start_soon(ask)
        assert answers.count([protocol.ProcessState.RUNNING]) == 20
        assert answers.count(b"") == 20


async def test_the_answer_to_a_question_that_was_given_up_is_not_the_next_ones(gateway: GatewayFactory) -> None:
    async with gateway(LIMITS, engine="local") as gw:
        task = Task(gw)
        await task.terminal("true")
        channel = (await sandbox_of(task)).channel
        with pytest.raises(SandboxLost, match="does not answer"):
            await listed(channel, 0)
        await task.terminal("sleep 60", background=True)
        assert sorted(await listed(channel)) == [protocol.ProcessState.RUNNING, protocol.ProcessState.GONE]


async def test_a_question_to_a_sandbox_that_dies_is_answered_by_that(gateway: GatewayFactory) -> None:
    async with gateway(LIMITS, engine="local") as gw:
        task = Task(gw)
        await task.terminal("true")
        channel = (await sandbox_of(task)).channel
        raised: list[str] = []

        async def ask() -> None:
            with pytest.raises(SandboxLost) as caught:
                # The supervisor never sends this of its own accord.
                await channel.ask(requests.ping(), events.Sudo, 60)
            raised.append(str(caught.value))

        async with anyio.create_task_group() as asking:
            asking.start_soon(ask)
            await anyio.wait_all_tasks_blocked()
            channel.give_up("the test says so")
        assert raised == ["The sandbox is gone: the test says so."]
