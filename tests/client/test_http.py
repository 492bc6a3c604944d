"""The client for programs over HTTP, with tokens; and tasks that another server of the deployment has."""

from __future__ import annotations

import json
from pathlib import Path

import anyio
import pytest

from client_serving import served
from gateways import GatewayFactory
from http_serving import PATIENCE, TOKENS, serving_http, tokens_for
from taskcell.caller import Scope
from taskcell.client import connect
from taskcell.client.failures import ForbiddenError, LostError, NotFoundError
from taskcell.client.wire import task_path

pytestmark = pytest.mark.anyio


async def test_principals_have_their_own_tasks_and_shells_and_tokens_their_scopes(tmp_path: Path) -> None:
    alice, mallory = tokens_for(tmp_path, "alice", "mallory")
    (reader,) = tokens_for(tmp_path, "alice", scopes=frozenset({Scope.FILES}))
    with serving_http(tmp_path, TOKENS) as server:
        with anyio.fail_after(4 * PATIENCE):
            async with (
                connect(server.url, token=alice) as hers,
                connect(f"{server.url}/mcp", token=mallory) as his,
                connect(server.url, token=reader) as files,
                connect(server.url, token="none") as nobody,
            ):
                task, other = await hers.open("t"), await his.open("t")
                async with task.shell("s") as shell, task.start("echo on; exec sleep 1000") as command:
                    async for _ in command:
                        break
                    await shell.run("x=hers")
                    assert (await task.run(["cat"], stdin=b"\xff" * 300_000)).stdout == b"\xff" * 300_000
                    with pytest.raises(NotFoundError):
                        await type(shell)(his._wire, "t", "s").run("echo $x")
                    path = task_path("t", "processes", command.id, "stdin")
                    with pytest.raises(NotFoundError):
                        await his._wire.json_bytes(path, b"x", task="t")
                    await other.run(["true"])
                    assert [found.id for found in await his.tasks()] == ["t"]
                    await task.write_bytes("hers", b"1")
                    assert await other.list() == []
                    assert await files.task("t").read_bytes("hers") == b"1"
                    with pytest.raises(ForbiddenError, match="terminal"):
                        await files.task("t").run(["true"])
                    with pytest.raises(ForbiddenError, match="terminal"):
                        async with files.task("t").shell():
                            pass
                    with pytest.raises(ForbiddenError):
                        await nobody.tasks()
        server.end()
        lines = [json.loads(line) for line in (tmp_path / "state/taskcell/audit.jsonl").read_text().splitlines()]
        decided = [line["command"] for line in lines if line["event"] == "decision" and line["principal"] == "alice"]
        assert "x=hers" in decided
        assert "cat" in decided


async def test_a_task_of_another_server_is_asked_there(gateway: GatewayFactory, tmp_path: Path) -> None:
    async with served(gateway, tmp_path / "state") as first:
        await first.task("t").write_bytes("whose", b"first")
        async with served(gateway, tmp_path / "state") as second:
            assert await second.task("t").read_bytes("whose") == b"first"
            assert (await second.task("t").run(["cat", "whose"])).stdout == b"first"
            async with second.task("t").shell() as shell:
                assert (await shell.run("cat whose")).stdout == b"first"


async def test_a_server_that_goes_is_a_lost_one(tmp_path: Path) -> None:
    (token,) = tokens_for(tmp_path, "alice")
    with serving_http(tmp_path, TOKENS) as server:
        with anyio.fail_after(4 * PATIENCE):
            async with connect(server.url, token=token, linger=0) as cell:
                async with cell.task("t").start("echo on; exec sleep 1000") as command:
                    async for _ in command:
                        server.process.kill()
                        break
                    with pytest.raises(LostError):
                        await command.wait()
                with pytest.raises(LostError):
                    await cell.tasks()
