"""`ask_egress`: the person is asked about a host that is not allowed, in both eras, once for the rest of the task."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp.client.client import Client
from mcp_types import ElicitResult, ErrorData, InputRequiredResult

from asking import fields_of, text_of
from gateways import GatewayFactory
from http_door import client_as, serving_http
from http_serving import PATIENCE
from proxied import Names, serving
from taskcell.audit.log import AuditLog
from taskcell.config.settings import Settings
from taskcell.destinations import Destination
from taskcell.egress import questions as module
from taskcell.egress.questions import Questions
from taskcell.egress.rules import NotConnected
from taskcell.gateway.gateway import Gateway
from taskcell.http.local_door import with_local_door
from taskcell.mcp.server import build_server
from taskcell.model import TaskKey

pytestmark = pytest.mark.anyio

ERAS = ["legacy", "2026-07-28"]
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\npage"
#: A name that has loopback's address here, which stands for a public one: the operator names it.
HOST = "files.example.org"
GET = (
    "import sys, urllib.request, urllib.error\n"
    "for url in sys.argv[1:]:\n"
    "    try: print(urllib.request.urlopen(url, timeout=60).read().decode())\n"
    "    except urllib.error.HTTPError as error: print(error.code, error.read().decode())\n"
)
ASKED: Any = {"taskcell/structured": True}
TASK = TaskKey("local", "default")


def config(port: int) -> str:
    return (
        f'manifests = []\n[engine]\nkind = "local"\n[terminal]\negress = ["127.0.0.1:{port}"]\n'
        f'[policy]\nask_egress = true\nallowed_egress = ["127.0.0.1:{port}"]\n'
    )


def get(*urls: str, **more: Any) -> dict[str, Any]:
    """Arguments of a command that fetches pages, one after the other."""
    return {"command": f'python3 -c "$GET" {" ".join(urls)}', "env": {"GET": GET}, **more}


class Person:
    """Answers each question as the test wants it."""

    def __init__(self, *actions: str) -> None:
        self.actions = list(actions)
        self.asked: list[str] = []

    async def __call__(self, context: Any, params: Any) -> ElicitResult:
        self.asked.append(params.message)
        action = self.actions.pop(0) if len(self.actions) > 1 else self.actions[0]
        return ElicitResult.model_validate({"action": action, "content": {} if action == "accept" else None})


@asynccontextmanager
async def client_of(
    gateway: GatewayFactory, mode: str, person: Person | None, port: int, **more: Any
) -> AsyncIterator[Client]:
    names = Names({HOST: ["127.0.0.1"], "other.example.org": ["127.0.0.1"], "private.example.org": ["10.1.2.3"]})
    async with (
        gateway(config(port), engine="local", resolve=names, **more) as gw,
        Client(build_server(gw), mode=mode, elicitation_callback=person) as client,
    ):
        with anyio.fail_after(4 * PATIENCE):
            yield client


@pytest.mark.parametrize("mode", ERAS)
async def test_a_yes_holds_for_the_rest_of_the_task_and_for_that_task_alone(
    gateway: GatewayFactory, mode: str, tmp_path: Path
) -> None:
    person, audit = Person("accept"), AuditLog(tmp_path / "audit.jsonl")
    async with serving(OK) as server, client_of(gateway, mode, person, server.port, audit=audit) as client:
        url = f"http://{HOST}:{server.port}/"
        first = fields_of(await client.call_tool("terminal", get(url, url), meta=ASKED))
        assert (first["stdout"], first["exit_code"], first["status"]) == ("page\npage\n", 0, "exited")
        assert len(person.asked) == 1
        assert f"{HOST}:{server.port}" in person.asked[0]
        assert "'default'" in person.asked[0]
        assert "page" in text_of(await client.call_tool("terminal", get(url)))
        assert len(person.asked) == 1
        await client.call_tool("terminal", get(url, task_id="other"))
        assert len(person.asked) == 2
        await client.call_tool("sandbox", {"action": "close"})
        await client.call_tool("terminal", get(url))
        assert len(person.asked) == 3
    lines = [json.loads(line) for line in audit.path.read_text().splitlines()]
    answers = [(line["task"], line["to"], line["effect"], line["answer"]) for line in lines if "answer" in line]
    assert answers[0] == ("default", f"{HOST}:{server.port}", "allow", "accept")
    commands = [line for line in lines if line["event"] == "decision" and line["tool"] == "terminal"]
    assert len(commands) == 4, "a command ran twice"


@pytest.mark.parametrize("mode", ERAS)
@pytest.mark.parametrize("action", ["decline", "cancel"])
async def test_a_no_denies_and_is_not_asked_again(gateway: GatewayFactory, mode: str, action: str) -> None:
    person = Person(action)
    async with serving(OK) as server, client_of(gateway, mode, person, server.port) as client:
        url = f"http://{HOST}:{server.port}/"
        for _ in range(2):
            result = fields_of(await client.call_tool("terminal", get(url), meta=ASKED))
            assert "403" in result["stdout"]
            assert any("does not allow it" in note for note in result["notes"])
        assert len(person.asked) == 1
        assert not server.connections


@pytest.mark.parametrize("mode", ERAS)
async def test_several_hosts_are_asked_one_after_the_other(gateway: GatewayFactory, mode: str) -> None:
    person = Person("accept", "decline")
    async with serving(OK) as server, client_of(gateway, mode, person, server.port) as client:
        urls = [f"http://{host}:{server.port}/" for host in (HOST, "other.example.org")]
        result = fields_of(await client.call_tool("terminal", get(*urls), meta=ASKED))
        assert result["stdout"].startswith("page\n403")
        assert len(person.asked) == 2


@pytest.mark.parametrize("mode", ERAS)
async def test_a_client_that_cannot_ask_is_denied_with_the_reason(gateway: GatewayFactory, mode: str) -> None:
    async with serving(OK) as server, client_of(gateway, mode, None, server.port) as client:
        url = f"http://{HOST}:{server.port}/"
        result = fields_of(await client.call_tool("terminal", get(url), meta=ASKED))
        assert "403" in result["stdout"]
        assert any("cannot be asked through this client" in note for note in result["notes"])


@pytest.mark.parametrize("mode", ERAS)
async def test_what_a_background_command_asks_is_asked_in_the_next_call(gateway: GatewayFactory, mode: str) -> None:
    person = Person("accept")
    async with serving(OK) as server, client_of(gateway, mode, person, server.port) as client:
        url = f"http://{HOST}:{server.port}/"
        await client.call_tool("terminal", get(url, background=True))
        wait = {"action": "wait", "process_id": "p1", "wait": PATIENCE}
        result = fields_of(await client.call_tool("process", wait, meta=ASKED))
        assert result["stdout"] == "page\n"
        assert len(person.asked) == 1


@pytest.mark.parametrize("mode", ERAS)
async def test_nobody_is_asked_about_what_is_not_public(gateway: GatewayFactory, mode: str) -> None:
    """And a name that leads to a private address is refused whatever the person says."""
    person = Person("accept")
    async with serving(OK) as server, client_of(gateway, mode, person, server.port) as client:
        hosts = ["10.0.0.5", "169.254.169.254", "[fe80::1]", "[::ffff:10.0.0.5]", "intranet", "a.local", "100.64.0.1"]
        shown = text_of(await client.call_tool("terminal", get(*(f"http://{host}:80/" for host in hosts))))
        assert shown.count("403 ") == len(hosts)
        assert not person.asked
        private = text_of(await client.call_tool("terminal", get(f"http://private.example.org:{server.port}/")))
        assert "not a public one" in private
        assert len(person.asked) == 1


async def test_an_answer_counts_once_and_for_its_principal(gateway: GatewayFactory) -> None:
    yes = {"egress": ElicitResult(action="accept", content={})}
    names = Names({HOST: ["127.0.0.1"]})
    async with (
        serving(OK) as server,
        gateway(config(server.port), engine="local", resolve=names) as gw,
        serving_http(build_server(gw)) as app,
        client_as(app, "ada", elicitation_callback=Person("accept")) as ada,
        client_as(app, "bob", elicitation_callback=Person("accept")) as bob,
    ):
        arguments = get(f"http://{HOST}:{server.port}/")

        async def call(client: Client, **more: Any) -> Any:
            return await client.session.call_tool("terminal", arguments, allow_input_required=True, **more)

        with anyio.fail_after(4 * PATIENCE):
            asked = await call(ada)
            assert isinstance(asked, InputRequiredResult)
            with pytest.raises(Exception, match="Invalid or expired requestState"):
                await call(bob, input_responses=yes, request_state=asked.request_state)
            assert "page" in text_of(await call(ada, input_responses=yes, request_state=asked.request_state))
            again = text_of(await call(ada, input_responses=yes, request_state=asked.request_state))
            assert "was used for a call already" in again
            assert isinstance(await call(bob), InputRequiredResult)


# --- a task that another server of the deployment has --------------------------------------------------------------


@asynccontextmanager
async def neighbour_of(
    gateway: GatewayFactory, folder: Path, mode: str, person: Any, port: int
) -> AsyncIterator[tuple[Client, Client]]:
    """The client of a server that has the task, and cannot ask; and one of a server beside it, with a person."""
    names = Names({HOST: ["127.0.0.1"], "other.example.org": ["127.0.0.1"]})

    def opened() -> AbstractAsyncContextManager[Gateway]:
        door = lambda: gateway(config(port), engine="local", state=folder, resolve=names)  # noqa: E731
        return with_local_door(door, Settings(), isolated=False)

    async with opened() as holder, opened() as other:
        async with Client(build_server(holder)) as first:
            await first.call_tool("terminal", {"command": "true"})
            async with Client(build_server(other), mode=mode, elicitation_callback=person) as second:
                with anyio.fail_after(4 * PATIENCE):
                    yield first, second
        assert [slot.task for slot in other.pool.slots] == []


@pytest.mark.parametrize("mode", ERAS)
async def test_the_person_at_a_server_beside_the_tasks_own_is_asked_and_nothing_runs_twice(
    gateway: GatewayFactory, tmp_path: Path, mode: str
) -> None:
    person = Person("accept", "decline")
    async with serving(OK) as server, neighbour_of(gateway, tmp_path / "s", mode, person, server.port) as (own, beside):
        urls = [f"http://{host}:{server.port}/" for host in (HOST, "other.example.org")]
        arguments = get(*urls)
        arguments["command"] = f"echo once >> {tmp_path}/count; {arguments['command']}"
        result = fields_of(await beside.call_tool("terminal", arguments, meta=ASKED))
        assert result["stdout"].startswith("page\n403")
        assert ["other.example.org" in question for question in person.asked] == [False, True]
        assert (tmp_path / "count").read_text() == "once\n"
        # The answers are the task's, whoever asks for it.
        again = fields_of(await own.call_tool("terminal", get(*urls), meta=ASKED))
        assert again["stdout"].startswith("page\n403")
        assert len(person.asked) == 2


@pytest.mark.parametrize("mode", ERAS)
async def test_what_a_background_command_asks_is_asked_by_a_server_beside_the_tasks_own(
    gateway: GatewayFactory, tmp_path: Path, mode: str
) -> None:
    person = Person("accept")
    async with serving(OK) as server, neighbour_of(gateway, tmp_path / "s", mode, person, server.port) as (_, beside):
        begun = fields_of(
            await beside.call_tool("terminal", get(f"http://{HOST}:{server.port}/", background=True), meta=ASKED)
        )
        wait = {"action": "wait", "process_id": begun["process_id"], "wait": PATIENCE}
        assert fields_of(await beside.call_tool("process", wait, meta=ASKED))["stdout"] == "page\n"
        assert len(person.asked) == 1


async def test_a_client_that_fails_to_ask_beside_the_tasks_own_server_gets_its_commands_end(
    gateway: GatewayFactory, tmp_path: Path
) -> None:
    async def broken(context: Any, params: Any) -> ErrorData:
        return ErrorData(code=-32603, message="no window")

    async with (
        serving(OK) as server,
        neighbour_of(gateway, tmp_path / "s", "legacy", broken, server.port) as (_, beside),
    ):
        url = f"http://{HOST}:{server.port}/"
        result = fields_of(await beside.call_tool("terminal", get(url), meta=ASKED))
        assert "403" in result["stdout"]
        assert not server.connections


# --- bounds ------------------------------------------------------------------------------------------------------


async def test_many_connections_to_one_host_are_one_question() -> None:
    questions, to = Questions(None), Destination(HOST, 443)
    passed: list[int] = []

    async def connect(number: int) -> None:
        await questions.check(TASK, to)
        passed.append(number)

    with anyio.fail_after(PATIENCE), questions.call(TASK, can_ask=True):
        async with anyio.create_task_group() as group:
            for number in range(20):
                group.start_soon(connect, number)
            question = await questions.next(TASK)
            await anyio.wait_all_tasks_blocked()
            assert question.waiting == 20
            questions.answer(TASK, question.to, "accept")
    assert len(passed) == 20


async def test_a_flood_of_hosts_is_asked_one_at_a_time_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ASKED", 3)
    monkeypatch.setattr(module, "MAX_WAITING_HOSTS", 2)
    questions, refused = Questions(None), list[str]()
    second: list[object] = []

    async def connect(number: int) -> None:
        with pytest.raises(NotConnected) as failure:
            await questions.check(TASK, Destination(f"h{number}.example.org", 443))
        refused.append(str(failure.value))

    async def ask_second() -> None:
        second.append(await questions.next(TASK))

    async def flood(group: anyio.abc.TaskGroup, numbers: range) -> None:
        for number in numbers:
            group.start_soon(connect, number)
        await anyio.wait_all_tasks_blocked()

    with anyio.fail_after(PATIENCE), questions.call(TASK, can_ask=True):
        async with anyio.create_task_group() as group:
            await flood(group, range(10))
            assert sum("2 other hosts wait" in sentence for sentence in refused) == 8
            first = await questions.next(TASK)
            group.start_soon(ask_second)
            await anyio.wait_all_tasks_blocked()
            assert not second, "two questions of one task were asked at once"
            questions.answer(TASK, first.to, "decline")
            await anyio.wait_all_tasks_blocked()
            (asked,) = second
            questions.answer(TASK, asked.to, "decline")  # type: ignore[attr-defined]
            await flood(group, range(10, 11))
            questions.answer(TASK, (await questions.next(TASK)).to, "decline")
            await flood(group, range(20, 25))
        assert sum("was asked 3 times" in sentence for sentence in refused) == 5


async def test_without_an_answer_the_connection_is_refused_at_its_bound_and_a_late_one_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "ASK_PATIENCE", 0.2)
    questions, to = Questions(None), Destination(HOST, 443)
    with anyio.fail_after(PATIENCE), questions.call(TASK, can_ask=True):
        with pytest.raises(NotConnected, match="has not answered yet"):
            await questions.check(TASK, to)
        questions.answer(TASK, to, "accept")
        await questions.check(TASK, to)


async def test_an_answer_that_cannot_be_written_down_allows_nothing(tmp_path: Path) -> None:
    (tmp_path / "audit.jsonl").mkdir()
    questions, to = Questions(AuditLog(tmp_path / "audit.jsonl")), Destination(HOST, 443)
    questions.answer(TASK, to, "accept")
    with pytest.raises(NotConnected, match="does not allow it"):
        await questions.check(TASK, to)
