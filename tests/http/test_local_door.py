"""The local door: a socket of one user, through which the person reaches a task that a server has."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import anyio
import httpx2
import pytest

from gateways import GatewayFactory
from http_serving import PATIENCE
from observe import alive, eventually, marker
from serving import serving
from taskcell.cli.in_task import door_of, run_in_task
from taskcell.cli.logs import show_logs
from taskcell.cli.rm import ask_to_remove
from taskcell.config.settings import Settings
from taskcell.deployment.doors import listen_at, open_doors
from taskcell.errors import TaskcellError
from taskcell.gateway.gateway import Gateway
from taskcell.gateway.removal import REMOVED
from taskcell.http.local_door import with_local_door
from taskcell.model import ProcessResult, Status, TaskKey, ToolCall
from taskcell.socket_name import short_path

pytestmark = pytest.mark.anyio

LOCAL = 'manifests = []\n[engine]\nkind = "local"\n'


@asynccontextmanager
async def opened(gateway: GatewayFactory, state: Path) -> AsyncIterator[Gateway]:
    """A gateway with its local door, after its first call in the task `t`."""
    opener = with_local_door(lambda: gateway(LOCAL, engine="local", state=state), Settings(), isolated=False)
    async with opener as gw:
        await gw.call(ToolCall("local", "terminal", {"command": "echo here > mine; cd /tmp", "task_id": "t"}))
        with anyio.fail_after(PATIENCE):
            while not open_doors(state):
                await anyio.sleep(0.01)
        yield gw


def call(line: str, **more: object) -> ToolCall:
    return ToolCall("local", "terminal", {"command": line, "task_id": "t", **more}, hand_off=False)


async def test_a_command_runs_in_the_very_task_of_the_server_and_its_output_is_whole(
    gateway: GatewayFactory, tmp_path: Path
) -> None:
    async with opened(gateway, tmp_path / "state") as gw:
        door = await door_of(tmp_path / "state", TaskKey("local", "t"))
        assert door is not None
        result, kept = await run_in_task(
            door, call("pwd; cat ~/mine; printf '\\377'; head -c 3000000 /dev/zero; exit 4")
        )
        assert (result.status, result.exit_code) == (Status.EXITED, 4)
        assert kept["STDOUT"].data.startswith(b"/tmp\nhere\n\xff\0\0")
        assert len(kept["STDOUT"].data) == 3_000_011
        after = await gw.call(ToolCall("local", "terminal", {"command": "ls ~", "task_id": "t"}))
        assert isinstance(after, ProcessResult)
        assert "mine" in after.stdout


async def test_a_task_that_no_server_has_is_behind_no_door(gateway: GatewayFactory, tmp_path: Path) -> None:
    async with opened(gateway, tmp_path / "state") as gw:
        await gw.call(ToolCall("ada", "terminal", {"command": "true", "task_id": "hers"}))
        assert await door_of(tmp_path / "state", TaskKey("local", "hers")) is None
        assert await door_of(tmp_path / "state", TaskKey("local", "nothing")) is None
    assert await door_of(tmp_path / "state", TaskKey("local", "t")) is None


async def test_a_command_that_takes_long_is_waited_for_and_a_cancelled_one_is_killed(
    gateway: GatewayFactory, tmp_path: Path
) -> None:
    mark = marker()
    async with opened(gateway, tmp_path / "state"):
        (door,) = open_doors(tmp_path / "state")
        with anyio.fail_after(PATIENCE):
            result, _ = await run_in_task(door, call("sleep 0.5; echo over", wait=0.1))
            assert (result.status, result.stdout) == (Status.EXITED, "over\n")
            async with anyio.create_task_group() as calls:
                calls.start_soon(run_in_task, door, call(f"sleep {mark}"))
                await anyio.to_thread.run_sync(lambda: eventually(lambda: bool(alive(mark))))
                calls.cancel_scope.cancel()
        assert await anyio.to_thread.run_sync(lambda: eventually(lambda: not alive(mark)))


async def test_what_does_not_run_is_the_servers_sentence(gateway: GatewayFactory, tmp_path: Path) -> None:
    async with opened(gateway, tmp_path / "state"):
        (door,) = open_doors(tmp_path / "state")
        with pytest.raises((TaskcellError, BaseExceptionGroup)) as refused:
            await run_in_task(door, call("true", workdir="/no/such"))
        assert "/no/such" in repr(refused.value)


async def test_the_door_is_its_users_alone_is_not_there_before_the_first_call_and_goes_with_the_server(
    gateway: GatewayFactory, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    opener = with_local_door(lambda: gateway(LOCAL, engine="local", state=state), Settings(), isolated=False)
    async with opener:
        assert open_doors(state) == []
    async with opened(gateway, state):
        (door,) = open_doors(state)
        assert stat.S_IMODE(door.stat().st_mode) == 0o600
        assert stat.S_IMODE(state.stat().st_mode) == 0o700
    assert list(state.glob("*.sock")) == []


async def test_a_folder_with_a_long_name_has_a_door_too_and_one_of_somebody_else_has_none(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 120)
    deep.mkdir(mode=0o700)
    with listen_at(deep / "x.sock"), short_path(deep / "x.sock") as name:
        assert len(name) < 100
    link = tmp_path / "link"
    link.symlink_to(deep)
    with pytest.raises(OSError, match=r".*"):
        listen_at(link / "y.sock")


async def test_what_processes_print_is_shown_to_their_end(
    gateway: GatewayFactory, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    async with opened(gateway, tmp_path / "state") as gw:
        (door,) = open_doors(tmp_path / "state")
        line = "echo begun; sleep 1; printf 'end\\377'"
        await gw.call(ToolCall("local", "terminal", {"command": line, "task_id": "t", "background": True}))
        with anyio.fail_after(PATIENCE):
            await show_logs(door, "t", "p2", follow=True, raw=False)
            assert capfdbinary.readouterr().out == b"begun\nend\xff"
            await show_logs(door, "t", None, follow=False, raw=False)
        out, err = capfdbinary.readouterr()
        assert out.endswith(b"begun\nend\xff")
        assert b"==> p1: " in err
        with pytest.raises(BaseExceptionGroup) as refused:
            await show_logs(door, "t", "p9", follow=False, raw=False)
        assert "it has p1, p2" in repr(refused.value)


@pytest.mark.engine
async def test_the_operator_closes_a_task_of_anybody_and_its_next_answer_says_so(
    gateway: GatewayFactory, tmp_path: Path
) -> None:
    async with opened(gateway, tmp_path / "state") as gw:
        hers = ToolCall("ada", "terminal", {"command": "ls", "task_id": "hers"})
        await gw.call(replace(hers, arguments={**hers.arguments, "command": "touch file"}))
        (door,) = open_doors(tmp_path / "state")
        assert await ask_to_remove(door, TaskKey("ada", "hers"), purge=False)
        assert [slot.task for slot in gw.pool.slots] == [TaskKey("local", "t")]
        for notes in ([REMOVED.format("lost")], []):
            after = await gw.call(hers)
            assert isinstance(after, ProcessResult)
            assert (after.stdout, list(after.notes)) == ("", notes)
        assert await ask_to_remove(door, TaskKey("ada", "nothing"), purge=False)
    assert not await ask_to_remove(door, TaskKey("ada", "hers"), purge=False)


@pytest.mark.parametrize(
    ("method", "body", "status"),
    [
        ("GET", b"", 405),
        ("POST", b"", 400),
        ("POST", b"[" * 9000, 400),
        ("POST", b'{"principal": 1, "task": "t"}', 400),
        ("POST", b'{"principal": "local", "task": "t", "purge": "yes"}', 400),
        ("POST", b'{"principal": "local", "task": "t", "more": "' + b"x" * 20_000 + b'"}', 400),
    ],
)
async def test_what_does_not_name_a_task_removes_none(
    gateway: GatewayFactory, tmp_path: Path, method: str, body: bytes, status: int
) -> None:
    async with opened(gateway, tmp_path / "state") as gw:
        (door,) = open_doors(tmp_path / "state")
        transport = httpx2.AsyncHTTPTransport(uds=str(door), verify=False)
        async with httpx2.AsyncClient(transport=transport, timeout=PATIENCE) as http:
            assert (await http.request(method, "http://localhost/remove", content=body)).status_code == status
        assert len(gw.pool.slots) == 1


async def test_taskcell_exec_reaches_the_task_of_a_stdio_server(tmp_path: Path) -> None:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        config = str(tmp_path / "taskcell.toml")
        command = [sys.executable, "-m", "taskcell", "exec", "--config", config, *words]
        env = {**os.environ, "XDG_STATE_HOME": str(tmp_path / "state")}
        return subprocess.run(command, check=False, capture_output=True, text=True, timeout=PATIENCE, env=env)

    with anyio.fail_after(2 * PATIENCE):
        async with serving(tmp_path, "manifests = []\n[pool]\nwarm = 0\n") as (client, _):
            await client.call_tool("terminal", {"command": "echo of-the-agent > f", "task_id": "t"})
            there = lambda: bool(list(tmp_path.glob("state/taskcell/deployments/*/*.sock")))  # noqa: E731
            assert await anyio.to_thread.run_sync(lambda: eventually(there))
            done = await anyio.to_thread.run_sync(run, "--task", "t", "--", "cat f; exit 7")
            assert (done.returncode, done.stdout) == (7, "of-the-agent\n"), done.stderr
            done = await anyio.to_thread.run_sync(run, "--task", "other", "--", "ls")
            assert (done.returncode, done.stdout) == (0, ""), done.stderr
            after = await client.call_tool("terminal", {"command": "cat f", "task_id": "t"})
            assert "of-the-agent" in json.dumps(after.model_dump(mode="json"))
