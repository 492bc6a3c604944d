"""Two principals on one server: whatever one of them guesses or has seen, it gets nothing of the other's."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from mcp.client.client import Client
from mcp.shared.exceptions import MCPError
from mcp_types import (
    LOG_LEVEL_META_KEY,
    CallToolResult,
    EmptyResult,
    LoggingMessageNotificationParams,
    SetLevelRequest,
    SetLevelRequestParams,
    TextContent,
)

from http_serving import ERAS, PATIENCE, TOKENS, HttpServer, serving_http, tokens_for
from observe import alive, eventually, marker
from taskcell.caller import Scope

pytestmark = pytest.mark.anyio

SECRET = "alices-secret"
META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {"extensions": {"io.modelcontextprotocol/tasks": {}}},
}


class Tenants:
    """A server, and tokens of alice and mallory."""

    def __init__(self, server: HttpServer, alice: str, mallory: str) -> None:
        self.server, self.alice, self.mallory = server, alice, mallory

    def ask(self, token: str, method: str, **params: Any) -> dict[str, Any]:
        """A request of the later era, as JSON."""
        message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {**params, "_meta": META}}
        named = params.get("name") or params.get("uri") or params.get("taskId")
        headers = {"mcp_protocol_version": "2026-07-28", "mcp_method": method}
        if named is not None:
            headers["mcp_name"] = named
        _, _, body = self.server.post(message, token, **headers)
        found: dict[str, Any] = json.loads(body)
        return found


@pytest.fixture(scope="module")
def tenants(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tenants]:
    folder = tmp_path_factory.mktemp("tenants")
    alice, mallory = tokens_for(folder, "alice", "mallory")
    toml = TOKENS + 'max_calls_per_principal = 2\ncalls_per_minute = 500\n[[policy.rules]]\nname = "not-mallory"\n'
    toml += 'tool = "terminal"\nprincipal = "mal*"\ncommand = "forbidden"\neffect = "deny"\nreason = "Not for you."\n'
    with serving_http(folder, toml) as server:
        yield Tenants(server, alice, mallory)
        assert "Traceback" not in server.log()


def text_of(result: CallToolResult) -> str:
    return "".join(block.text for block in result.content if isinstance(block, TextContent))


async def plant(client: Client, task: str) -> str:
    """Have alice's task hold her secret in a file and in a process's output; return the process's name."""
    await client.call_tool("write_file", {"path": "secret", "content": SECRET, "task_id": task})
    line = f"echo {SECRET}; sleep 60"
    started = await client.call_tool("terminal", {"command": line, "task_id": task, "background": True})
    return "p2" if "p2" in text_of(started) else "p1"


@pytest.mark.parametrize("mode", ERAS)
async def test_the_same_names_mean_other_tasks_files_and_processes(tenants: Tenants, mode: str) -> None:
    task = f"shared-{mode}"
    with anyio.fail_after(PATIENCE):
        async with (
            tenants.server.client(tenants.alice, mode) as alice,
            tenants.server.client(tenants.mallory, mode) as mallory,
        ):
            process = await plant(alice, task)
            said = []
            for name in ("p1", "p2", process):
                for action in ("poll", "kill", "write", "list", "wait"):
                    arguments = {"action": action, "process_id": name, "task_id": task, "data": "x", "wait": 0.1}
                    if action == "list":
                        del arguments["process_id"], arguments["data"], arguments["wait"]
                    said.append(text_of(await mallory.call_tool("process", arguments)))
            said.append(text_of(await mallory.call_tool("read_file", {"path": "secret", "task_id": task})))
            said += [
                text_of(await mallory.call_tool("sandbox", {"action": action, "task_id": task}))
                for action in ("status", "reset", "close")
            ]
            assert not [answer for answer in said if SECRET in answer]
            after = await alice.call_tool("terminal", {"command": "cat secret", "task_id": task})
            assert text_of(after).startswith(SECRET)
            polled = await alice.call_tool("process", {"action": "poll", "process_id": process, "task_id": task})
            assert "still running" in text_of(polled)
            await alice.call_tool("sandbox", {"action": "close", "task_id": task})


async def test_nobody_else_has_a_tasks_files_by_a_fork(tenants: Tenants) -> None:
    with anyio.fail_after(PATIENCE):
        async with tenants.server.client(tenants.alice) as alice, tenants.server.client(tenants.mallory) as mallory:
            await alice.call_tool("write_file", {"path": "secret", "content": SECRET, "task_id": "source"})
            fork = {"action": "fork", "task_id": "source", "to": "copy"}
            said = [await client.call_tool("sandbox", fork) for client in (alice, mallory)]
            assert [one.is_error for one in said] == [False, True], list(map(text_of, said))
            assert not [one for one in said if SECRET in text_of(one)]
            shown = {"command": "cat secret", "task_id": "copy"}
            assert text_of(await alice.call_tool("terminal", shown)).startswith(SECRET)
            assert SECRET not in text_of(await mallory.call_tool("terminal", shown))
            for task in ("source", "copy"):
                await alice.call_tool("sandbox", {"action": "close", "task_id": task})


async def test_the_addresses_of_resources_lead_to_ones_own_tasks_alone(tenants: Tenants) -> None:
    with anyio.fail_after(PATIENCE):
        async with tenants.server.client(tenants.alice) as alice, tenants.server.client(tenants.mallory) as mallory:
            process = await plant(alice, "res")
            base = "taskcell://tasks/res"
            output = f"{base}/processes/{process}/output"
            assert SECRET in (await alice.read_resource(output)).model_dump_json()
            tricks = [output, f"{output}?cursor=0&limit=10", f"{base}/files/secret", f"{base}/files/./secret"]
            tricks += ["taskcell://tasks/alice%2Fres/files/secret", "taskcell://tasks/5:aliceres/files/secret"]
            tricks += [f"{base}/files/../../res/secret", "taskcell://tasks/../alice/res/files/secret"]
            for uri in tricks:
                with pytest.raises(MCPError) as refused:
                    await mallory.read_resource(uri)
                assert SECRET not in str(refused.value)
            assert "alice" not in (await mallory.list_resources()).model_dump_json()
            await alice.call_tool("sandbox", {"action": "close", "task_id": "res"})


async def test_a_session_is_its_principals_own_and_a_foreign_one_is_as_if_it_did_not_exist(tenants: Tenants) -> None:
    server = tenants.server
    session = server.initialize(tenants.alice)
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    strange = server.post(message, tenants.mallory, mcp_session_id=session)
    unknown = server.post(message, tenants.mallory, mcp_session_id="0" * 32)
    assert (strange[0], strange[2]) == (unknown[0], unknown[2])
    assert strange[0] == 404
    for method in ("GET", "DELETE"):
        headers = {"authorization": f"Bearer {tenants.mallory}", "mcp_session_id": session}
        assert server.request(method, "/mcp", accept="text/event-stream", **headers)[0] == 404
    assert server.post(message, tenants.alice, mcp_session_id=session)[0] == 200


async def test_a_new_token_of_the_same_principal_goes_on_with_the_session(tenants: Tenants) -> None:
    session = tenants.server.initialize(tenants.alice)
    (other,) = tokens_for(tenants.server.folder, "alice")
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    assert tenants.server.post(message, other, mcp_session_id=session)[0] == 200


async def test_what_one_session_has_sent_is_never_replayed_to_another(tenants: Tenants) -> None:
    """The streams of all sessions have the same names: the numbers of requests."""
    server = tenants.server
    events = {}
    for token, word in ((tenants.alice, SECRET), (tenants.mallory, "nothing")):
        session = server.initialize(token)
        call = {"name": "terminal", "arguments": {"command": f"echo {word}"}}
        message = {"jsonrpc": "2.0", "id": 5, "method": "tools/call", "params": call}
        _, _, body = server.post(message, token, mcp_session_id=session, mcp_protocol_version="2025-11-25")
        assert word in body
        events[token] = session, [line.split(": ")[1].strip() for line in body.splitlines() if line.startswith("id: ")]
    session, _ = events[tenants.mallory]
    for event in [*events[tenants.alice][1], *events[tenants.mallory][1], "1", "0", "-1", "x-0"]:
        headers = {"authorization": f"Bearer {tenants.mallory}", "mcp_session_id": session, "last_event_id": event}
        async with httpx2.AsyncClient(timeout=PATIENCE) as http:
            sent = {name.replace("_", "-"): value for name, value in headers.items()}
            sent["accept"] = "text/event-stream"
            heard = b""
            with anyio.move_on_after(0.5):
                async with http.stream("GET", f"{server.url}/mcp", headers=sent) as stream:
                    async for piece in stream.aiter_bytes():
                        heard += piece
            assert SECRET.encode() not in heard


async def test_the_routes_for_files_and_programs_lead_to_ones_own_tasks_alone(tenants: Tenants) -> None:
    server, large = tenants.server, "x" * 100

    def ask(token: str, method: str, path: str, body: object = None) -> tuple[int, str]:
        data = b"" if body is None else body.encode() if isinstance(body, str) else json.dumps(body).encode()
        status, _, text = server.request(method, path, data, authorization=f"Bearer {token}")
        return status, text

    def secret_of(token: str) -> str:
        return ask(token, "GET", "/files/routes/secret")[1]

    assert ask(tenants.alice, "PUT", "/files/routes/secret", SECRET)[0] == 200
    run = {"command": f"echo {SECRET}; sleep 60", "task_id": "routes", "background": True}
    assert ask(tenants.alice, "POST", "/tools/terminal", run)[0] == 200
    named = {"labels": {"of": "alice"}, "lifetime": 600}
    assert ask(tenants.alice, "PUT", "/tasks/routes", named)[0] == 200
    spied = [
        ask(tenants.mallory, "GET", "/files/routes/secret"),
        ask(tenants.mallory, "GET", "/files/routes/"),
        ask(tenants.mallory, "GET", "/files/alice%3Aroutes/secret"),
        ask(tenants.mallory, "GET", "/files/routes/%2e%2e/routes/secret"),
        ask(tenants.mallory, "GET", "/tasks"),
        ask(tenants.mallory, "GET", "/tasks?label=of=alice"),
        ask(tenants.mallory, "POST", "/tasks/routes/processes/p1/stdin?end=1", "x"),
        ask(tenants.mallory, "POST", "/tasks/routes/processes/p2/stdin?end=1", "x"),
        ask(tenants.mallory, "POST", "/tools/process", {"action": "poll", "process_id": "p1", "task_id": "routes"}),
        ask(tenants.mallory, "POST", "/tools/process", {"action": "kill", "process_id": "p2", "task_id": "routes"}),
        ask(tenants.mallory, "POST", "/tools/sandbox", {"action": "close", "task_id": "routes"}),
    ]
    assert not [text for _, text in spied if SECRET in text or '"of"' in text]
    assert ask(tenants.mallory, "PUT", "/files/routes/secret", large)[0] == 200
    assert ask(tenants.mallory, "PUT", "/tasks/routes", {"labels": {"of": "mallory"}, "lifetime": 1})[0] == 200
    assert (secret_of(tenants.alice), secret_of(tenants.mallory)) == (SECRET, large)
    listed = json.loads(ask(tenants.alice, "GET", "/tasks?label=of=alice")[1])["tasks"]
    assert [task["task_id"] for task in listed] == ["routes"]
    assert listed[0]["ends_in_s"] > 60
    polled = {"action": "list", "task_id": "routes"}
    assert "running" in ask(tenants.alice, "POST", "/tools/process", polled)[1]
    for token, task in ((tenants.alice, "routes"), (tenants.mallory, "routes"), (tenants.mallory, "alice:routes")):
        ask(token, "POST", "/tools/sandbox", {"action": "close", "task_id": task})


async def test_a_cursor_of_ones_own_output_reads_nothing_of_anothers(tenants: Tenants) -> None:
    """A cursor is a place in the output that the call names, and no key to any other."""
    with anyio.fail_after(PATIENCE):
        async with tenants.server.client(tenants.alice) as alice, tenants.server.client(tenants.mallory) as mallory:
            for client, word in ((alice, SECRET), (mallory, "own")):
                run = {"command": f"for i in 1 2 3 4 5 6; do echo {word}; done; sleep 60", "task_id": "cursors"}
                await client.call_tool("terminal", {**run, "background": True})
            for cursor in (0, 1, 7, 40, 10**6, 2**53):
                poll = {"action": "poll", "process_id": "p1", "task_id": "cursors", "cursor": cursor}
                assert SECRET not in text_of(await mallory.call_tool("process", poll))
            for client in (alice, mallory):
                await client.call_tool("sandbox", {"action": "close", "task_id": "cursors"})


async def test_a_task_of_the_tasks_extension_is_its_principals_own(tenants: Tenants) -> None:
    arguments = {"command": f"echo {SECRET}; sleep 60", "task_id": "ext", "wait": 0.1}
    made = tenants.ask(tenants.alice, "tools/call", name="terminal", arguments=arguments)
    identity = made["result"]["taskId"]
    assert tenants.ask(tenants.alice, "tasks/get", taskId=identity)["result"]["status"] == "working"
    unknown = tenants.ask(tenants.mallory, "tasks/get", taskId="nonsense")["error"]
    for method in ("tasks/get", "tasks/cancel", "tasks/update"):
        strange = tenants.ask(tenants.mallory, method, taskId=identity)
        assert strange["error"] == unknown
    assert tenants.ask(tenants.alice, "tasks/get", taskId=identity)["result"]["status"] == "working"
    assert "result" in tenants.ask(tenants.alice, "tasks/cancel", taskId=identity)


async def test_rules_see_the_principal(tenants: Tenants) -> None:
    with anyio.fail_after(PATIENCE):
        async with tenants.server.client(tenants.alice) as alice, tenants.server.client(tenants.mallory) as mallory:
            assert "[exit 0" in text_of(await alice.call_tool("terminal", {"command": "echo forbidden"}))
            denied = await mallory.call_tool("terminal", {"command": "echo forbidden"})
            assert denied.is_error
            assert "Not for you." in text_of(denied)


async def test_one_principals_calls_leave_room_for_the_others(tenants: Tenants) -> None:
    with anyio.fail_after(PATIENCE):
        async with (
            tenants.server.client(tenants.alice) as alice,
            tenants.server.client(tenants.mallory) as mallory,
            anyio.create_task_group() as calls,
        ):
            mark = marker()
            for number in range(2):
                arguments = {"command": f"exec sleep {mark}", "task_id": f"busy-{number}"}
                calls.start_soon(mallory.call_tool, "terminal", arguments)
            run = await anyio.to_thread.run_sync(lambda: eventually(lambda: len(alive(mark)) == 2))
            assert run
            refused = await mallory.call_tool("terminal", {"command": "true"})
            assert refused.is_error
            assert "http.max_calls_per_principal" in text_of(refused)
            assert "[exit 0" in text_of(await alice.call_tool("terminal", {"command": "true"}))
            calls.cancel_scope.cancel()


@pytest.mark.parametrize("mode", ERAS)
async def test_the_list_has_what_the_scopes_allow_and_a_call_of_the_rest_is_refused(
    tenants: Tenants, mode: str
) -> None:
    (token,) = tokens_for(tenants.server.folder, "carol", scopes=frozenset({Scope.FILES}))
    with anyio.fail_after(PATIENCE):
        async with tenants.server.client(token, mode) as client:
            names = [tool.name for tool in (await client.list_tools()).tools]
            assert set(names) >= {"read_file", "write_file"}
            assert not {"terminal", "process", "sandbox"} & set(names)
            await client.call_tool("write_file", {"path": "x", "content": "y"})
            with pytest.raises(MCPError):
                await client.read_resource("taskcell://tasks/default/processes/p1/output")


async def test_whether_a_foreign_session_exists_cannot_be_measured(tenants: Tenants) -> None:
    """The quickest answers come together, however busy the machine is: what would tell the two apart costs each one."""
    server, message = tenants.server, {"jsonrpc": "2.0", "id": 1, "method": "ping"}
    session = server.initialize(tenants.alice)
    took: dict[str, list[float]] = {session: [], "0" * 32: []}
    for number in range(2000):
        for tried, times in took.items():
            began = time.perf_counter()
            assert server.post(message, tenants.mallory, mcp_session_id=tried)[0] == 404
            times.append(time.perf_counter() - began)
        one, other = map(min, took.values())
        if number >= 60 and abs(one - other) < 0.001:
            return
    pytest.fail(f"{one} s for a session of somebody else, {other} s for none")


def test_the_log_has_no_token(tenants: Tenants, tmp_path: Path) -> None:
    log = tenants.server.log()
    for token in (tenants.alice, tenants.mallory):
        assert token.split("_", 2)[2] not in log


@pytest.mark.parametrize("mode", ERAS)
async def test_a_log_tells_each_principal_of_its_own_tasks_alone(tenants: Tenants, mode: str) -> None:
    heard: dict[str, list[str]] = {"alice": [], "mallory": []}
    news = anyio.Condition()
    task = f"log-{mode}"

    def hearing(name: str) -> Any:
        async def hear(params: LoggingMessageNotificationParams) -> None:
            assert params.data["task_id"] == task
            async with news:
                heard[name].append(params.data["message"])
                news.notify_all()

        return hear

    async def run(client: Client, command: str) -> None:
        meta: Any = {LOG_LEVEL_META_KEY: "debug"}
        await client.call_tool("terminal", {"command": command, "task_id": task}, meta=meta)

    with anyio.fail_after(PATIENCE):
        async with (
            tenants.server.client(tenants.alice, mode, logging_callback=hearing("alice")) as alice,
            tenants.server.client(tenants.mallory, mode, logging_callback=hearing("mallory")) as mallory,
        ):
            for client in (alice, mallory) if mode == "legacy" else ():
                request = SetLevelRequest(params=SetLevelRequestParams(level="debug"))
                await client.session.send_request(request, EmptyResult)
            async with anyio.create_task_group() as calls:
                calls.start_soon(run, mallory, "until test -e done; do sleep 0.01; done")
                await run(alice, "exit 7")
                await run(mallory, "touch done")
            async with news:
                while not all("A call of terminal was done" in " ".join(said) for said in heard.values()):
                    await news.wait()
    # What one hears comes in order: mallory's own end came after alice's.
    assert sum("exit code 7" in said for said in heard["alice"]) == 1
    assert not [said for said in heard["mallory"] if "exit code 7" in said]
