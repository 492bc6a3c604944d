"""Two servers of one deployment that live at the same time: each task is in one of them, and both clients reach it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import anyio
import pytest
from mcp.client.client import Client
from mcp.shared.exceptions import MCPError
from mcp_types import ElicitResult, RequestParamsMeta, TextResourceContents

from asking import fields, text_of
from gateways import GatewayFactory
from http_serving import PATIENCE
from observe import alive, eventually, marker
from taskcell.cli.in_task import door_of
from taskcell.config.settings import Settings
from taskcell.deployment.base import Claimed
from taskcell.deployment.claim_files import ClaimFiles, holder_of
from taskcell.deployment.doors import open_doors
from taskcell.deployment.state_folder import StateFolder
from taskcell.gateway.gateway import Gateway
from taskcell.http.local_door import with_local_door
from taskcell.mcp.local_client import local_client
from taskcell.mcp.passed_on import CALL
from taskcell.mcp.server import build_server
from taskcell.model import TaskKey, ToolCall

pytestmark = pytest.mark.anyio

LOCAL = 'manifests = []\n[engine]\nkind = "local"\n'
ASKING = LOCAL + '[[policy.rules]]\nname = "careful"\ncommand = "deploy"\neffect = "ask"\nreason = "Careful."\n'
TASK = TaskKey("local", "t")


class Server:
    """A server with its client."""

    def __init__(self, gateway: Gateway, client: Client) -> None:
        self.gateway, self.client = gateway, client

    async def run(self, command: str, task: str = "t", **more: Any) -> dict[str, Any]:
        with anyio.fail_after(PATIENCE):
            return await fields(self.client, "terminal", {"command": command, "task_id": task, **more})

    @property
    def tasks(self) -> set[str]:
        return {slot.task.task for slot in self.gateway.pool.slots}


@asynccontextmanager
async def served(gateway: GatewayFactory, state: Path, toml: str = LOCAL, **client: Any) -> AsyncIterator[Server]:
    opener = with_local_door(lambda: gateway(toml, engine="local", state=state), Settings(), isolated=False)
    async with opener as gw, Client(build_server(gw), **client) as connected:
        yield Server(gw, connected)


async def test_a_client_that_names_a_call_as_servers_of_a_cluster_do_can_cancel_it_all_the_same(
    gateway: GatewayFactory, tmp_path: Path
) -> None:
    mark = marker()
    async with served(gateway, tmp_path) as server, anyio.create_task_group() as calls:
        arguments, meta = {"command": f"sleep {mark}", "task_id": "t"}, cast(RequestParamsMeta, {CALL: "name"})
        calls.start_soon(lambda: server.client.session.call_tool("terminal", arguments, meta=meta))
        assert await anyio.to_thread.run_sync(lambda: eventually(lambda: bool(alive(mark))))
        calls.cancel_scope.cancel()
        with anyio.CancelScope(shield=True):
            assert await anyio.to_thread.run_sync(lambda: eventually(lambda: not alive(mark)))


async def test_both_clients_see_the_same_files_folder_variables_processes_and_resources(
    gateway: GatewayFactory, tmp_path: Path
) -> None:
    async with served(gateway, tmp_path) as first, served(gateway, tmp_path) as second:
        await first.run("echo mine > file; cd /tmp; export SEEN=yes")
        assert (await second.run("cat ~/file; pwd; echo $SEEN"))["stdout"] == "mine\n/tmp\nyes\n"
        started = await second.run("echo out; sleep 100", background=True)
        listed = await fields(first.client, "process", {"action": "list", "task_id": "t"})
        assert started["process_id"] in [found["process_id"] for found in listed["processes"]]
        (text,) = (await second.client.read_resource("taskcell://tasks/t/files/file")).contents
        assert isinstance(text, TextResourceContents)
        assert text.text == "mine\n"
        assert await second.client.call_tool("read_file", {"path": "none", "task_id": "t"}) == (
            await first.client.call_tool("read_file", {"path": "none", "task_id": "t"})
        )
        with pytest.raises(MCPError, match="has no process"):
            await second.client.read_resource("taskcell://tasks/t/processes/p99/output")
        assert (first.tasks, second.tasks) == ({"t"}, set())


async def test_tasks_of_two_names_stay_in_the_servers_that_had_them_first(
    gateway: GatewayFactory, tmp_path: Path
) -> None:
    async with served(gateway, tmp_path) as first, served(gateway, tmp_path) as second:
        await first.run("true", "a")
        await second.run("true", "b")
        await first.run("true", "b")
        await second.run("true", "a")
        assert (first.tasks, second.tasks) == ({"a"}, {"b"})
        for name, server in (("a", first), ("b", second)):
            door = await door_of(tmp_path, TaskKey("local", name))
            assert door == server.gateway.pool.deployment.state.door


async def test_when_both_want_a_new_task_at_once_one_of_them_has_it(gateway: GatewayFactory, tmp_path: Path) -> None:
    async with served(gateway, tmp_path) as first, served(gateway, tmp_path) as second:
        async with anyio.create_task_group() as calls:
            for server in (first, second) * 4:
                calls.start_soon(server.run, "echo line >> file; cat file >/dev/null")
        assert (await second.run("wc -l < file"))["stdout"].strip() == "8"
        assert [first.tasks, second.tasks].count({"t"}) == 1


async def test_a_call_reports_progress_and_is_killed_when_its_client_gives_up(
    gateway: GatewayFactory, tmp_path: Path
) -> None:
    mark, heard = marker(), anyio.Event()

    async def hear(progress: float, total: float | None, message: str | None) -> None:
        if message and "begun" in message:
            heard.set()

    async with served(gateway, tmp_path) as first, served(gateway, tmp_path) as second:
        await first.run("true")
        await second.run("true", "its own")  # opens its door
        door = second.gateway.pool.deployment.state.door
        assert door is not None
        assert await anyio.to_thread.run_sync(lambda: eventually(lambda: door in open_doors(tmp_path)))
        with anyio.fail_after(PATIENCE):
            async with local_client(door) as client, anyio.create_task_group() as calls:
                arguments = {"command": f"echo begun; sleep {mark}", "task_id": "t"}
                calls.start_soon(lambda: client.session.call_tool("terminal", arguments, progress_callback=hear))
                await heard.wait()
                assert alive(mark)
                calls.cancel_scope.cancel()
        assert await anyio.to_thread.run_sync(lambda: eventually(lambda: not alive(mark)))


@pytest.mark.parametrize("mode", ["legacy", "2026-07-28"])
async def test_the_person_is_asked_through_the_client_that_calls(
    gateway: GatewayFactory, tmp_path: Path, mode: str
) -> None:
    asked: list[str] = []

    async def person(context: Any, params: Any) -> ElicitResult:
        asked.append(params.message)
        return ElicitResult(action="accept" if len(asked) == 1 else "decline", content={})

    async with (
        served(gateway, tmp_path, ASKING) as first,
        served(gateway, tmp_path, ASKING, mode=mode, elicitation_callback=person) as second,
    ):
        await first.run("true")
        call = {"command": "echo deploy", "task_id": "t"}
        assert "deploy" in text_of(await second.client.call_tool("terminal", call))
        refused = await second.client.call_tool("terminal", call)
        assert "does not allow this" in text_of(refused)
        assert ["echo deploy" in question for question in asked] == [True, True]
        cannot = await first.client.call_tool("terminal", call)
        assert cannot.is_error


async def test_a_server_that_ends_during_a_call_is_named_and_nothing_is_run_again(
    gateway: GatewayFactory, tmp_path: Path
) -> None:
    mark, begun, stop = marker(), anyio.Event(), anyio.Event()

    async def serve_until_stopped() -> None:
        async with served(gateway, tmp_path / "state") as first:
            await first.run("true")
            begun.set()
            await stop.wait()

    async with served(gateway, tmp_path / "state") as second:
        line = f"echo once >> {tmp_path}/count; sleep {mark}"
        with anyio.fail_after(PATIENCE):
            async with anyio.create_task_group() as calls:
                calls.start_soon(serve_until_stopped)
                await begun.wait()
                calls.start_soon(expect_an_error, second.client, line)
                await anyio.to_thread.run_sync(lambda: eventually(lambda: bool(alive(mark))))
                stop.set()
        assert (tmp_path / "count").read_text() == "once\n"
        # The task is the second server's now, in a fresh sandbox: the first one has closed its own.
        assert (await second.run("ls -A"))["stdout"] == ""
        assert second.tasks == {"t"}


async def expect_an_error(client: Client, line: str) -> None:
    answer = await client.call_tool("terminal", {"command": line, "task_id": "t"})
    assert answer.is_error
    assert "server" in text_of(answer)


async def test_a_server_without_its_door_is_not_waited_for_without_an_end(
    gateway: GatewayFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskcell.mcp.neighbours.DOOR_PATIENCE", 0.2)
    async with gateway(LOCAL, engine="local", state=tmp_path) as alone, served(gateway, tmp_path) as second:
        await alone.call(ToolCall("local", "terminal", {"command": "true", "task_id": "t"}))
        assert await alone.pool.holder(TASK) == Claimed()
        answer = await second.client.call_tool("terminal", {"command": "true", "task_id": "t"})
        assert answer.is_error
        assert "cannot be reached; end that server, or use another task_id" in text_of(answer)


async def test_principals_of_other_doors_share_nothing(gateway: GatewayFactory, tmp_path: Path) -> None:
    hers = TaskKey("ada", "t")
    async with served(gateway, tmp_path) as first, served(gateway, tmp_path) as second:
        for server in (first, second):
            assert await server.gateway.pool.holder(hers) == Claimed()
        assert holder_of(tmp_path, hers) == ""


# --- claims ------------------------------------------------------------------------------------------------------


class Servers:
    """Deployments that share a folder, each with claims of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.joined: dict[str, StateFolder] = {}

    def claims(self, name: str) -> ClaimFiles:
        deployment = self.joined[name] = StateFolder(self.folder)
        deployment.join(name)
        assert deployment.door is not None
        return ClaimFiles(deployment, deployment.door)

    def end(self, name: str, *, keep: bool = False) -> None:
        self.joined.pop(name).leave(keep=keep)


@pytest.fixture
def servers(tmp_path: Path) -> Servers:
    return Servers(tmp_path)


def test_a_task_is_the_first_ones_until_it_gives_it_up_or_ends(servers: Servers, tmp_path: Path) -> None:
    one, two = servers.claims("one"), servers.claims("two")
    assert one.claim(TASK).door is None
    assert two.claim(TASK).door == tmp_path / "one.sock"
    one.release([TASK])
    assert two.claim(TASK).door is None
    assert one.claim(TASK).door == tmp_path / "two.sock"
    servers.end("two", keep=True)
    mine = one.claim(TASK)
    assert (mine.door, mine.dead) == (None, "two")
    assert holder_of(tmp_path, TASK) == "one"


def test_a_server_gives_up_no_claim_of_another(servers: Servers, tmp_path: Path) -> None:
    one, two = servers.claims("one"), servers.claims("two")
    one.claim(TASK)
    two.release([TASK])
    two.take([TASK])
    assert (holder_of(tmp_path, TASK), two.own) == ("one", set())


def test_claims_of_servers_that_left_nothing_are_swept_and_others_stay(servers: Servers, tmp_path: Path) -> None:
    one, two, three = (servers.claims(name) for name in ("one", "two", "three"))
    tasks = [TaskKey("local", name) for name in ("a", "b", "c")]
    for claims, task in zip((one, two, three), tasks, strict=True):
        claims.claim(task)
    servers.joined["two"].write([])
    servers.end("two", keep=True)
    servers.end("three")
    one.sweep()
    assert [holder_of(tmp_path, task) for task in tasks] == ["one", "two", ""]


@pytest.mark.parametrize("garbage", [b"", b"../../etc", b"\xff\xfe", b"x" * 100_000])
def test_a_claim_that_no_server_wrote_is_as_good_as_none(servers: Servers, tmp_path: Path, garbage: bytes) -> None:
    one = servers.claims("one")
    (tmp_path / "tasks").mkdir(mode=0o700)
    (tmp_path / "tasks" / TASK.digest).write_bytes(garbage)
    assert one.claim(TASK).door is None
    assert holder_of(tmp_path, TASK) == "one"


def test_a_link_in_a_claims_place_is_neither_read_nor_followed(servers: Servers, tmp_path: Path) -> None:
    one, precious = servers.claims("one"), tmp_path / "precious"
    precious.write_text("two")
    (tmp_path / "tasks").mkdir(mode=0o700)
    (tmp_path / "tasks" / TASK.digest).symlink_to(precious)
    assert one.claim(TASK).door is None
    assert precious.read_text() == "two"
    assert holder_of(tmp_path, TASK) == "one"
