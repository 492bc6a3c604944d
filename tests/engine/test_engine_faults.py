"""An engine that hangs, is restarted, is away or has a full disk, and a container that is paused: with real ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import anyio
import docker
import pytest

from gateways import GatewayFactory
from observe import containers, eventually
from second_engine import DASH, SecondEngine
from taskcell.errors import EngineError, EngineUnavailable
from taskcell.gateway.gateway import Gateway
from taskcell.model import ProcessResult, ToolCall

pytestmark = [pytest.mark.anyio, pytest.mark.engine, pytest.mark.faults]

#: Seconds for a sandbox that says nothing to be given up: PING_AFTER and PING_TIMEOUT of the pool, the PATIENCE with
#: which it is connected to again, and some slack.
GIVEN_UP = 80.0
#: Seconds that an engine is away; what is done about it does not change with time.
AWAY = 10.0
#: Bytes of disk of an engine whose disk is filled up: its image takes two or three MB.
SMALL_DISK = 48 << 20


def show(*files: str) -> str:
    """A command that prints files, for an image that has no cat."""
    return f'for f in {" ".join(files)}; do while read -r line; do echo "$line"; done < $f; done'


async def terminal(gw: Gateway, command: str, task: str = "t") -> ProcessResult:
    return await gw.call(ToolCall("local", "terminal", {"command": command, "task_id": task}))


async def in_thread(work: Callable[[], object]) -> None:
    await anyio.to_thread.run_sync(work)


def has_printed(gw: Gateway) -> bool:
    """Whether output of a command that runs has come."""
    records = [record for sandbox in gw.awaited.values() for record in sandbox.processes]
    return any(record.process.written[0] and not record.process.has_ended for record in records)


async def while_it_runs(gw: Gateway, command: str, trouble: Callable[[], object]) -> ProcessResult:
    """The result of a command under which something happens when it has begun."""
    results: list[ProcessResult] = []

    async def long() -> None:
        results.append(await terminal(gw, f"echo begun; {command}"))

    with anyio.fail_after(GIVEN_UP):
        async with anyio.create_task_group() as calls:
            calls.start_soon(long)
            while not has_printed(gw):
                await anyio.sleep(0.02)
            await in_thread(trouble)
    return results[0]


async def test_a_paused_sandbox_loses_its_command_and_the_next_one_has_the_files(
    gateway: GatewayFactory, docker_api: docker.APIClient
) -> None:
    async with gateway('deployment = "paused-under-a-command"') as gw:
        await terminal(gw, "echo kept > file")
        (container,) = containers(docker_api, taskcell__deployment="paused-under-a-command")
        lost = await while_it_runs(gw, "sleep 300", lambda: docker_api.pause(container))
        assert (lost.status.value, lost.stdout) == ("lost", "begun\n")
        assert "does not answer" in lost.notes[0]
        with anyio.fail_after(GIVEN_UP):
            after = await terminal(gw, show("file"))
        assert after.stdout == "kept\n"
        assert "still there" in after.notes[0]
        gone = lambda: container not in containers(docker_api, taskcell__deployment="paused-under-a-command")  # noqa: E731
        assert await anyio.to_thread.run_sync(eventually, gone)


async def test_a_container_removed_from_outside_loses_its_command_and_the_next_one_works(
    gateway: GatewayFactory, docker_api: docker.APIClient
) -> None:
    async with gateway('deployment = "removed-outside"') as gw:
        await terminal(gw, "true")
        (container,) = containers(docker_api, taskcell__deployment="removed-outside")
        lost = await while_it_runs(gw, "sleep 300", lambda: docker_api.remove_container(container, force=True))
        assert (lost.status.value, lost.stdout) == ("lost", "begun\n")
        after = await terminal(gw, "echo works")
        assert after.stdout == "works\n"
        assert "are lost" in after.notes[0]


@pytest.mark.parametrize("persistent", [False, True])
async def test_an_engine_restarted_under_a_command_loses_it_and_what_is_on_disk_stays(
    gateway: GatewayFactory, second_engine: SecondEngine, persistent: bool
) -> None:
    def restart() -> None:
        second_engine.stop()
        second_engine.start()

    toml = f"{DASH}[workspace]\npersistent = {str(persistent).lower()}\n"
    async with gateway(toml, host=second_engine.host) as gw:
        await terminal(gw, "echo kept > file; echo 1 >> runs")
        lost = await while_it_runs(gw, "echo 1 >> runs; sleep 300", restart)
        assert (lost.status.value, lost.stdout) == ("lost", "begun\n")
        with anyio.fail_after(GIVEN_UP):
            after = await terminal(gw, show("file", "runs"))
        # The lost command wrote its line before the engine went, and was not run again.
        expected = "kept\n1\n1\n" if persistent else "No such file"
        assert after.stdout == expected if persistent else expected in after.stdout
        assert ("still there" if persistent else "are lost") in after.notes[0]
        assert (await terminal(gw, "echo works")).notes == ()
    if not persistent:
        assert await anyio.to_thread.run_sync(eventually, lambda: second_engine.volumes() == [])


async def test_while_the_engine_is_away_each_call_says_so_and_when_it_is_back_they_work(
    gateway: GatewayFactory, second_engine: SecondEngine
) -> None:
    async with gateway(DASH, host=second_engine.host) as gw:
        await terminal(gw, "true")
        await in_thread(second_engine.stop)
        with anyio.move_on_after(AWAY):
            while True:
                with pytest.raises(EngineUnavailable, match="does not answer"):
                    await terminal(gw, "echo away")
                await anyio.sleep(1)
        await in_thread(second_engine.start)
        with anyio.fail_after(GIVEN_UP):
            assert (await terminal(gw, "echo works")).stdout == "works\n"


async def test_an_engine_that_hangs_costs_a_command_nothing_and_when_it_goes_on_all_is_there(
    gateway: GatewayFactory, second_engine: SecondEngine
) -> None:
    async with gateway(DASH, host=second_engine.host) as gw:
        await terminal(gw, "echo kept > file")
        begun = await while_it_runs(gw, "sleep 300", second_engine.freeze)
        assert begun.status.value == "running"
        await in_thread(second_engine.thaw)
        after = None
        with anyio.fail_after(2 * GIVEN_UP):
            while after is None:
                with suppress(EngineUnavailable):
                    after = await terminal(gw, show("file"))
        assert (after.stdout, after.notes) == ("kept\n", ())
        poll = {"action": "poll", "process_id": begun.process_id, "task_id": "t"}
        assert (await gw.call(ToolCall("local", "process", poll))).result.status.value == "running"


@pytest.fixture
def small_engine() -> Iterator[SecondEngine]:
    engine = SecondEngine(SMALL_DISK)
    try:
        engine.start()
        yield engine
    finally:
        engine.remove()


async def test_a_full_disk_is_one_clear_error_and_with_room_again_the_next_call_works(
    gateway: GatewayFactory, small_engine: SecondEngine
) -> None:
    def fill() -> None:
        with (small_engine.data / "filler").open("wb", 0) as filler, suppress(OSError):
            while True:
                filler.write(bytes(4096))

    async with gateway(DASH, host=small_engine.host) as gw:
        await terminal(gw, "true", "before")
        await in_thread(fill)
        with anyio.fail_after(GIVEN_UP), pytest.raises(EngineError, match="disk is full"):
            await terminal(gw, "true", "during")
        assert (await terminal(gw, "echo works", "before")).stdout == "works\n"
        Path(small_engine.data / "filler").unlink()
        assert (await terminal(gw, "echo works", "during")).stdout == "works\n"
