"""A timeout and a cancel leave nothing alive, however it detached itself. Looked at from the host."""

from __future__ import annotations

import time

import anyio
import docker
import pytest

from gateways import GatewayFactory
from observe import HOST_TIMEOUT, alive, commands_in, eventually, marker
from taskcell.gateway.gateway import Gateway
from taskcell.model import ProcessResult, ToolCall
from timed_out import timed_out

pytestmark = [pytest.mark.anyio, pytest.mark.engine]

#: Each leaves a child of the marked sleep behind, and then waits for ever itself.
DETACHED = {
    "in the foreground": "sleep {mark}",
    "in the background": "sleep {mark} & wait",
    "by setsid": "setsid sleep {mark} & sleep {mark}",
    "by nohup": "nohup sleep {mark} >/dev/null 2>&1 & sleep {mark}",
    "by a double fork": "( ( setsid sleep {mark} & ) & ) ; sleep {mark}",
    "with a cleared environment": "env -i setsid /bin/sleep {mark} & sleep {mark}",
    "ignoring TERM": "trap '' TERM; (trap '' TERM; sleep {mark}; sleep {mark}) & sleep {mark}; sleep {mark}",
    "as a daemon that closes everything": (
        'python3 -c "import os,time\nif os.fork(): time.sleep({mark})\nos.setsid()\nif os.fork(): os._exit(0)\n'
        'os.closerange(0,256); time.sleep({mark})"'
    ),
    "stopped": "(sleep {mark} & kill -STOP $!; sleep {mark}) & sleep {mark}",
    # The kernel shows it as a zombie, and its other thread lives on. 60 and 93 are the system call exit.
    "as a process whose main thread has ended": (
        "python3 -c 'import ctypes, os, platform, threading, time\n"
        "if os.fork(): time.sleep({mark})\nos.setsid()\n"
        "threading.Thread(target=time.sleep, args=[{mark}]).start()\n"
        'ctypes.CDLL(None).syscall(60 if platform.machine() == "x86_64" else 93, 0)\''
    ),
}


async def terminal(gw: Gateway, command: str, timeout: float = 30.0, task: str = "default") -> ProcessResult:
    arguments = {"command": command, "timeout": timeout, "task_id": task}
    return await gw.call(ToolCall("local", "terminal", arguments))


@pytest.mark.parametrize("how", DETACHED)
async def test_after_a_timeout_nothing_is_alive_on_the_host(gateway: GatewayFactory, how: str) -> None:
    mark = marker()
    async with gateway() as gw:
        await terminal(gw, "true")
        line = f"echo begun; {DETACHED[how].format(mark=mark)}"
        result = await timed_out(lambda timeout: terminal(gw, line, timeout), lambda result: bool(result.stdout))
        assert alive(mark) == []
        assert (result.status.value, result.exit_code, result.survivors) == ("timed_out", 124, 0)
        assert result.stdout.startswith("begun\n")
        after = await terminal(gw, "echo works; ps -e -o args= | grep -c '[s]leep'")
        assert after.stdout == "works\n0\n"


@pytest.mark.parametrize("how", DETACHED)
async def test_after_a_cancel_nothing_is_alive_on_the_host(gateway: GatewayFactory, how: str) -> None:
    mark = marker()
    async with gateway() as gw:
        await terminal(gw, "true")
        async with anyio.create_task_group() as calls:
            calls.start_soon(terminal, gw, DETACHED[how].format(mark=mark))
            assert await anyio.to_thread.run_sync(eventually, lambda: bool(alive(mark)))
            calls.cancel_scope.cancel()
        assert alive(mark) == []
        assert (await terminal(gw, "echo works")).stdout == "works\n"


async def test_a_fork_bomb_is_dead_after_its_timeout_and_the_sandbox_works(
    gateway: GatewayFactory, docker_api: docker.APIClient
) -> None:
    async with gateway() as gw:
        await terminal(gw, "true")
        report = await gw.call(ToolCall("local", "sandbox", {"action": "status"}))
        container = report.sandboxes[0].container
        began = time.monotonic()
        result = await terminal(gw, "bomb() { bomb | bomb & }; bomb; sleep 60", timeout=1)
        took = time.monotonic() - began
        assert commands_in(docker_api, container) == []
        assert (result.status.value, result.survivors) == ("timed_out", 0)
        # One second until the timeout, two of grace, half a second to be dead on a machine that has nothing else to do.
        assert took < 1 + 2.5 + HOST_TIMEOUT
        assert (await terminal(gw, "echo works")).stdout == "works\n"


async def test_a_fork_bomb_is_dead_after_a_cancel(gateway: GatewayFactory, docker_api: docker.APIClient) -> None:
    async with gateway() as gw:
        await terminal(gw, "true")
        container = (await gw.call(ToolCall("local", "sandbox", {"action": "status"}))).sandboxes[0].container
        async with anyio.create_task_group() as calls:
            calls.start_soon(terminal, gw, "bomb() { bomb | bomb & }; bomb; sleep 60")
            assert await anyio.to_thread.run_sync(eventually, lambda: len(commands_in(docker_api, container)) > 50)
            calls.cancel_scope.cancel()
        assert commands_in(docker_api, container) == []
        assert (await terminal(gw, "echo works")).stdout == "works\n"


async def test_what_a_finished_command_left_in_the_background_lives_on_until_the_sandbox_closes(
    gateway: GatewayFactory,
) -> None:
    mark = marker()
    async with gateway() as gw:
        result = await terminal(gw, f"sleep {mark} >/dev/null 2>&1 &")
        assert result.status.value == "exited"
        assert any("1 process that it started still runs in the background" in note for note in result.notes)
        assert len(alive(mark)) == 1
        await gw.call(ToolCall("local", "sandbox", {"action": "close"}))
        assert alive(mark) == []


async def test_a_killed_command_keeps_no_state_and_a_finished_one_does(gateway: GatewayFactory) -> None:
    async with gateway() as gw:
        await terminal(gw, "mkdir -p a && cd a && export COLOR=red")
        await terminal(gw, "cd /tmp; export COLOR=blue; sleep 60", timeout=0.5)
        result = await terminal(gw, 'echo "$PWD $COLOR"; exit 3')
        assert (result.stdout, result.exit_code, result.workdir) == ("/workspace/a red\n", 3, "/workspace/a")
