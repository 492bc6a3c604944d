"""What a client's pickers show: resources, completions and prompts; and what a client hears of a resource's changes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
import uvicorn
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError
from mcp_types import PromptReference, ResourceTemplateReference, ResourceUpdatedNotification

from asking import fields
from gateways import GatewayFactory
from http_door import SignedIn, client_as, serving_http
from taskcell.mcp.resources.files import FILE_LOOK_INTERVAL
from taskcell.mcp.server import build_server
from taskcell.mcp.subscriptions import MAX_FOLLOWED
from taskcell.model import TaskKey

pytestmark = pytest.mark.anyio

LOCAL = 'manifests = []\n[engine]\nkind = "local"\n'
ERAS = ["legacy", "2026-07-28"]
#: Seconds for what takes one or two looks, on a machine that is busy.
PATIENCE = 120.0
FILES = ResourceTemplateReference(type="ref/resource", uri="taskcell://tasks/{task_id}/files/{+path}")
OUTPUTS = ResourceTemplateReference(
    type="ref/resource", uri="taskcell://tasks/{task_id}/processes/{process_id}/output{?stream,cursor,limit}"
)


@pytest.fixture
async def client(gateway: GatewayFactory) -> AsyncIterator[Client]:
    async with gateway(LOCAL, engine="local") as gw, Client(build_server(gw)) as connected:
        yield connected


async def run(client: Client, command: str, **more: Any) -> dict[str, Any]:
    return await fields(client, "terminal", {"command": command, **more})


async def names(client: Client) -> list[str]:
    return [resource.name for resource in (await client.list_resources(cache_mode="refresh")).resources]


@pytest.mark.parametrize("era", ERAS)
async def test_the_files_and_processes_of_open_tasks_are_listed_the_newest_first(
    gateway: GatewayFactory, era: str
) -> None:
    async with gateway(LOCAL, engine="local") as gw, Client(build_server(gw), mode=era) as client:
        assert await names(client) == []
        await run(
            client, "mkdir -p a/b && touch -d '2020-01-01' old a/b/older && touch -d '2021-01-01' 'new er' && ln -s x l"
        )
        await run(client, "echo hello", task_id="other")
        listed = await names(client)
        assert listed[0] == "p1 of other"
        assert listed[listed.index("p1 of default") :] == ["p1 of default", "new er", "old", "a/b/older"] or listed[
            listed.index("p1 of default") :
        ] == ["p1 of default", "new er", "a/b/older", "old"]
        for resource in (await client.list_resources()).resources:
            read = (await client.read_resource(resource.uri)).contents[0]
            assert resource.size is not None
            assert len(json.loads(read.model_dump_json())["text"]) == resource.size


async def test_a_name_that_breaks_lines_or_hides_is_listed_quoted_and_can_be_read(client: Client) -> None:
    await run(client, "for name in $'n\\n[note: x]' $'b\\u202etxt.c' plain; do echo text > \"$name\"; done")
    listed = (await client.list_resources()).resources[1:]
    assert {resource.name for resource in listed} == {r"'n\n[note: x]'", r"'b\u202etxt.c'", "plain"}
    for resource in listed:
        read = (await client.read_resource(resource.uri)).contents[0]
        assert json.loads(read.model_dump_json())["text"] == "text\n"


@pytest.mark.parametrize("name", ["x\x1b[2J\n[note: y]", "\u202e"])
async def test_a_sentence_about_a_wrong_name_quotes_it_on_one_line(client: Client, name: str) -> None:
    for arguments in ((name, {}), ("review-task", {name: "y"})):
        with pytest.raises(MCPError) as refused:
            await client.get_prompt(*arguments)
        assert name not in str(refused.value)
        assert str(refused.value).isprintable()


async def test_listing_starts_no_sandbox(gateway: GatewayFactory) -> None:
    async with gateway(LOCAL, engine="local") as gw, Client(build_server(gw)) as client:
        assert await names(client) == []
        answer = await client.complete(FILES, {"name": "path", "value": ""})
        assert answer.completion.values == []
        assert await gw.pool.of_task(TaskKey("local", "default")) == []


async def test_a_long_list_comes_in_pages(client: Client) -> None:
    await run(client, "for i in $(seq 230); do echo $i > f$i; done")
    found, cursor, pages = [], None, 0
    while pages == 0 or cursor is not None:
        page = await client.list_resources(cursor=cursor)
        found += [resource.name for resource in page.resources]
        cursor, pages = page.next_cursor, pages + 1
    assert pages == 3
    assert sorted(found) == sorted(["p1 of default", *(f"f{number}" for number in range(1, 231))])


@pytest.mark.parametrize("cursor", ["x", "-1", "1" * 40, "²"])
async def test_a_cursor_of_no_page_is_refused(client: Client, cursor: str) -> None:
    with pytest.raises(MCPError, match="cursor"):
        await client.list_resources(cursor=cursor)


async def test_tasks_files_and_processes_are_completed(client: Client) -> None:
    await run(client, "mkdir src && touch src/main.c src/make.h README")
    await run(client, "true", task_id="deploy")
    await run(client, "true", task_id="docs")

    async def completed(ref: Any, name: str, value: str, **given: str) -> list[str]:
        answer = await client.complete(ref, {"name": name, "value": value}, given or None)
        return answer.completion.values

    assert await completed(FILES, "task_id", "d") == ["docs", "deploy", "default"]
    assert await completed(PromptReference(type="ref/prompt", name="review-task"), "task_id", "do") == ["docs"]
    assert sorted(await completed(FILES, "path", "src/ma", task_id="default")) == ["src/main.c", "src/make.h"]
    assert await completed(FILES, "path", "R") == ["README"]
    assert await completed(FILES, "path", "", task_id="docs") == []
    assert await completed(OUTPUTS, "process_id", "p", task_id="default") == ["p1"]
    assert await completed(OUTPUTS, "path", "", task_id="default") == []
    assert await completed(OUTPUTS, "process_id", "", task_id="nobody") == []


async def test_a_caller_is_shown_its_own_tasks_alone(gateway: GatewayFactory) -> None:
    async with (
        gateway(LOCAL, engine="local") as gw,
        serving_http(build_server(gw)) as app,
        client_as(app, "one") as one,
        client_as(app, "two") as two,
    ):
        await run(one, "echo secret > plans", task_id="mine")
        assert "plans" in await names(one)
        assert await names(two) == []
        for ref, name in ((FILES, "task_id"), (FILES, "path"), (OUTPUTS, "process_id")):
            answer = await two.complete(ref, {"name": name, "value": ""}, {"task_id": "mine"})
            assert answer.completion.values == []


@pytest.mark.parametrize("era", ERAS)
async def test_prompts_are_offered_and_filled_in(gateway: GatewayFactory, era: str) -> None:
    async with gateway(LOCAL, engine="local") as gw, Client(build_server(gw), mode=era) as client:
        assert [prompt.name for prompt in (await client.list_prompts()).prompts] == ["start-task", "review-task"]
        started = await client.get_prompt("start-task", {"goal": "Count {words}.", "task_id": "count"})
        text = json.loads(started.messages[0].model_dump_json())["content"]["text"]
        assert "Count {words}." in text
        assert "`count`" in text
        reviewed = await client.get_prompt("review-task")
        assert "`default`" in reviewed.messages[0].model_dump_json()


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("nothing", {}, "start-task, review-task"),
        ("start-task", {}, "needs the argument 'goal'"),
        ("start-task", {"goal": " "}, "needs the argument 'goal'"),
        ("review-task", {"goal": "x"}, "has no argument 'goal'"),
        ("review-task", {"task_id": "x" * 129}, "longer than 128"),
    ],
)
async def test_a_prompt_that_cannot_be_made_is_refused_with_a_sentence(
    client: Client, name: str, arguments: dict[str, str], said: str
) -> None:
    with pytest.raises(MCPError, match=said):
        await client.get_prompt(name, arguments)


@pytest.mark.parametrize("era", ["legacy", "auto"])
async def test_only_what_is_sent_is_declared(gateway: GatewayFactory, era: str) -> None:
    async with gateway(LOCAL, engine="local") as gw, Client(build_server(gw), mode=era) as client:
        declared = client.server_capabilities
        assert declared.tools is not None
        assert declared.resources is not None
        assert declared.prompts is not None
        assert (declared.tools.list_changed, declared.resources.subscribe) == (True, True)
        assert not declared.resources.list_changed
        assert not declared.prompts.list_changed
        assert declared.completions is not None
        assert declared.logging is not None


class Following:
    """What a client hears of resources that it follows, in its era's way."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.heard: list[str] = []
        self._news = anyio.Event()

    def hear(self, uri: str) -> None:
        self.heard.append(uri)
        news, self._news = self._news, anyio.Event()
        news.set()

    async def until(self, times: int) -> None:
        with anyio.fail_after(PATIENCE):
            while len(self.heard) < times:
                await self._news.wait()


@asynccontextmanager
async def following(gw: Any, era: str, *uris: str) -> AsyncIterator[Following]:
    async def message(message: Any) -> None:
        if isinstance(message, ResourceUpdatedNotification):
            follower.hear(message.params.uri)

    async with Client(build_server(gw), mode=era, message_handler=message if era == "legacy" else None) as client:
        follower = Following(client)
        if era == "legacy":
            for uri in uris:
                await client.subscribe_resource(uri)
            yield follower
            return
        async with client.listen(resource_subscriptions=uris) as changes, anyio.create_task_group() as tasks:

            async def hear() -> None:
                async for change in changes:
                    follower.hear(change.uri)

            tasks.start_soon(hear)
            yield follower
            tasks.cancel_scope.cancel()


@pytest.mark.filterwarnings("ignore:resources/")
@pytest.mark.parametrize("era", ERAS)
async def test_a_client_hears_of_every_change_of_a_file_that_it_follows(gateway: GatewayFactory, era: str) -> None:
    uri = "taskcell://tasks/default/files/notes.txt"
    async with gateway(LOCAL, engine="local") as gw, Client(build_server(gw)) as other:
        await run(other, "touch beside")
        async with following(gw, era, uri) as follower:
            # Made, replaced in the same second by as many bytes, and removed: each is a change.
            for times, command in enumerate(
                ("echo 1 > t; mv t notes.txt", "echo 2 > t; mv t notes.txt", "rm notes.txt"), start=1
            ):
                await run(other, command)
                await follower.until(times)
                await anyio.sleep(2 * FILE_LOOK_INTERVAL)
            await run(other, "echo else > beside; echo mine > notes.txt", task_id="another")
            await run(other, "echo else > beside")
            await anyio.sleep(2 * FILE_LOOK_INTERVAL)
            assert follower.heard == [uri] * 3


@pytest.mark.filterwarnings("ignore:resources/")
@pytest.mark.parametrize("era", ERAS)
async def test_a_client_hears_of_the_file_that_a_tasks_first_command_makes(gateway: GatewayFactory, era: str) -> None:
    uri = "taskcell://tasks/default/files/notes.txt"
    async with (
        gateway(LOCAL, engine="local") as gw,
        Client(build_server(gw)) as other,
        following(gw, era, uri) as follower,
    ):
        await run(other, "echo 1 > t; mv t notes.txt")
        await follower.until(1)
        assert follower.heard == [uri]


@pytest.mark.filterwarnings("ignore:resources/")
@pytest.mark.parametrize("era", ERAS)
async def test_a_change_right_after_a_subscription_is_heard(gateway: GatewayFactory, era: str) -> None:
    uri = "taskcell://tasks/default/files/notes.txt"
    async with gateway(LOCAL, engine="local") as gw, Client(build_server(gw)) as other:
        await run(other, "touch -d 2020-01-01 notes.txt")
        async with following(gw, era, uri) as follower:
            await run(other, "echo 1 > t; mv t notes.txt")
            await follower.until(1)
            assert follower.heard == [uri]


@pytest.mark.filterwarnings("ignore:resources/")
@pytest.mark.parametrize("era", ERAS)
async def test_a_client_hears_of_a_processs_output_until_its_end(gateway: GatewayFactory, era: str) -> None:
    uri = "taskcell://tasks/default/processes/p1/output"
    async with gateway(LOCAL, engine="local") as gw, Client(build_server(gw)) as other:
        await run(other, "read x; echo $x; read y; echo $y", background=True)
        async with following(gw, era, uri) as follower:
            for times, line in enumerate(("one\n", "two\n"), start=1):
                await other.call_tool("process", {"action": "write", "process_id": "p1", "data": line})
                await follower.until(times)
            [content] = (await follower.client.read_resource(uri)).contents
            assert json.loads(content.model_dump_json())["text"] == "one\ntwo\n"
            assert set(follower.heard) == {uri}


@pytest.mark.filterwarnings("ignore:resources/")
async def test_who_unsubscribes_hears_nothing_more(gateway: GatewayFactory) -> None:
    uri, beside = (f"taskcell://tasks/default/files/{name}" for name in ("notes.txt", "beside.txt"))
    async with gateway(LOCAL, engine="local") as gw, Client(build_server(gw)) as other:
        await run(other, "true")
        async with following(gw, "legacy", uri, uri, beside) as follower:
            await run(other, "echo 1 > t; mv t notes.txt")
            await follower.until(1)
            await follower.client.unsubscribe_resource(uri)
            await run(other, "echo 22 > t; mv t notes.txt; echo 22 > t; mv t beside.txt")
            await follower.until(2)
            await anyio.sleep(2 * FILE_LOOK_INTERVAL)
            assert follower.heard == [uri, beside]


@asynccontextmanager
async def over_a_socket(app: Any, principal: str) -> AsyncIterator[Client]:
    """A client of one principal that gets a stream as it comes: inside one process it would come whole, at its end."""
    config = uvicorn.Config(SignedIn(app, principal), port=0, lifespan="off", log_level="error")
    server = uvicorn.Server(config)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(server.serve)
        with anyio.fail_after(PATIENCE):
            while not server.started:
                await anyio.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        async with Client(streamable_http_client(f"http://127.0.0.1:{port}/mcp"), mode="2026-07-28") as client:
            yield client
        server.should_exit = True


@asynccontextmanager
async def has_sandboxes(*clients: Client) -> AsyncIterator[None]:
    for client in clients:
        await run(client, "true")
    yield


async def test_no_one_hears_of_anothers_resource_of_the_same_address(gateway: GatewayFactory) -> None:
    uri = "taskcell://tasks/default/files/notes.txt"
    heard: dict[str, int] = {"one": 0, "two": 0}
    async with (
        gateway(LOCAL, engine="local") as gw,
        serving_http(build_server(gw)) as app,
        over_a_socket(app, "one") as one,
        over_a_socket(app, "two") as two,
        has_sandboxes(one, two),
        one.listen(resource_subscriptions=[uri]) as ones,
        two.listen(resource_subscriptions=[uri]) as twos,
        anyio.create_task_group() as tasks,
    ):
        told = {name: anyio.Event() for name in heard}

        async def hear(name: str, changes: Any) -> None:
            async for _ in changes:
                heard[name] += 1
                told[name].set()

        tasks.start_soon(hear, "one", ones)
        tasks.start_soon(hear, "two", twos)
        for name, client in (("one", one), ("two", two)):  # what "two" hears first is what it has changed itself
            assert heard[name] == 0
            await run(client, "echo 1 > t; mv t notes.txt")
            with anyio.fail_after(PATIENCE):
                await told[name].wait()
        assert heard == {"one": 1, "two": 1}
        tasks.cancel_scope.cancel()


async def test_a_look_at_a_followed_file_keeps_no_sandbox_from_being_closed(gateway: GatewayFactory) -> None:
    toml = LOCAL + '[pool]\nidle_ttl = "3s"\n'
    task = TaskKey("local", "default")
    async with gateway(toml, engine="local") as gw, Client(build_server(gw)) as other:
        await run(other, "echo 1 > notes.txt")
        async with following(gw, "2026-07-28", "taskcell://tasks/default/files/notes.txt"):
            with anyio.fail_after(PATIENCE):
                while await gw.pool.of_task(task):
                    await anyio.sleep(0.2)


@pytest.mark.filterwarnings("ignore:resources/")
@pytest.mark.parametrize(
    "uri", ["file:///etc/passwd", "taskcell://tasks/default/nothing/x", "taskcell://tasks//files/x"]
)
async def test_what_cannot_be_a_resource_is_not_followed(client: Client, gateway: GatewayFactory, uri: str) -> None:
    with pytest.raises(MCPError, match="no such resource"):
        async with client.listen(resource_subscriptions=[uri]):
            pass
    async with gateway(LOCAL, engine="local") as gw, Client(build_server(gw), mode="legacy") as old:
        with pytest.raises(MCPError, match="no such resource"):
            await old.subscribe_resource(uri)


async def test_the_number_of_followed_resources_is_bounded(client: Client) -> None:
    uris = [f"taskcell://tasks/default/files/{number}" for number in range(MAX_FOLLOWED + 1)]
    with pytest.raises(MCPError, match="At most 64"):
        async with client.listen(resource_subscriptions=uris):
            pass
    async with client.listen(resource_subscriptions=uris[:-1]):
        with pytest.raises(MCPError, match="At most 64"):
            async with client.listen(resource_subscriptions=uris[-1:]):
                pass
    with anyio.fail_after(PATIENCE):
        while not await can_listen(client, uris[-1]):  # the end of a request reaches the server a moment later
            await anyio.sleep(0.05)


async def can_listen(client: Client, uri: str) -> bool:
    try:
        async with client.listen(resource_subscriptions=[uri]):
            return True
    except MCPError:
        return False
