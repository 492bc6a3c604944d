"""The tasks extension over stdio: what a client that declares it is answered, and what everybody else still is."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import anyio
import anyio.abc
import pytest
from mcp.client.client import Client
from mcp.client.extension import ClaimContext, ClientExtension, ResultClaim
from mcp.shared.exceptions import MCPError
from mcp_types import CallToolResult, Request, RequestParams, Result

from asking import ASKED, fields_of
from gateways import GatewayFactory
from http_door import client_as, http_as, serving_http
from observe import alive, eventually, marker
from raw_client import RawClient, raw_client
from serving import serving
from taskcell.engine.base import Standing
from taskcell.mcp.methods import EXTENSION
from taskcell.mcp.server import build_server
from taskcell.model import LOCAL_PRINCIPAL, Command, Profile, TaskKey
from taskcell.process.record import About
from taskcell.sandbox.sandbox import Sandbox
from taskcell.supervisor import protocol
from taskcell.supervisor.channel import Channel
from timed_out import TIMEOUTS

#: Seconds for what takes milliseconds, on a busy machine with a server that is just starting.
PATIENCE = 90.0
TOML = """
manifests = ["skills.toml"]
[engine]
kind = "local"
[limits]
wait = "1s"
output_chars = 2000
[pool]
idle_ttl = "2m"
"""
#: `sh_run` runs a shell line, as one of the skills whose sandbox is made for one call alone does.
SKILLS = """version = "1"
[skills.sh]
description = "Runs a shell line."
source = "docker:x"
docker.entrypoint = ["sh", "-c"]
[skills.sh.tools.run]
description = "Run it."
argv = ["{line}"]
parameters.line = { type = "string", description = "The line." }
[skills.once]
description = "Runs a shell line, in a sandbox of its own."
source = "docker:x"
docker.entrypoint = ["sh", "-c"]
docker.reuse = "call"
[skills.once.tools.run]
description = "Run it."
argv = ["{line}"]
parameters.line = { type = "string", description = "The line." }
"""
#: A command that ends when it is told to, by a file.
UNTIL_GO = "echo begun; until [ -e go ]; do sleep 0.02; done; echo done; exit 3"
INVALID_PARAMS, METHOD_NOT_FOUND, MISSING_CAPABILITY, HEADER_MISMATCH = -32602, -32601, -32021, -32020
#: What a client of the 2026-07-28 revision says of itself in each request.
META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientInfo": {"name": "raw", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {"extensions": {EXTENSION: {}}},
    **ASKED,
}


class ModernClient:
    """A client of the 2026-07-28 revision that says what it can in each request, at work on one task."""

    def __init__(self, raw: RawClient, task: str = "default") -> None:
        self.raw = raw
        self.task = task

    def ask(self, method: str, *, declares: bool = True, **params: Any) -> dict[str, Any]:
        """Send a request and wait for its answer."""
        meta = META if declares else META | {"io.modelcontextprotocol/clientCapabilities": {}}
        return self.raw.ask(method, **params, _meta=meta)

    def result(self, method: str, *, declares: bool = True, **params: Any) -> dict[str, Any]:
        answer = self.ask(method, declares=declares, **params)
        assert "error" not in answer, answer
        found: dict[str, Any] = answer["result"]
        return found

    def error(self, method: str, *, declares: bool = True, **params: Any) -> dict[str, Any]:
        answer = self.ask(method, declares=declares, **params)
        assert "error" in answer, answer
        found: dict[str, Any] = answer["error"]
        return found

    def call(self, name: str, *, declares: bool = True, **arguments: Any) -> dict[str, Any]:
        arguments.setdefault("task_id", self.task)
        return self.result("tools/call", declares=declares, name=name, arguments=arguments)

    def terminal(self, line: str, *, declares: bool = True, **arguments: Any) -> dict[str, Any]:
        return self.call("terminal", declares=declares, command=line, **arguments)

    def start(self, line: str, **arguments: Any) -> str:
        """Start a command that goes on; answers the task's id."""
        created = self.terminal(line, **{"background": True, "timeout": 180, **arguments})
        assert created["resultType"] == "task", created
        identity: str = created["taskId"]
        return identity

    def get(self, identity: str) -> dict[str, Any]:
        return self.result("tasks/get", taskId=identity)

    def end(self, identity: str, process_id: str = "p1", **arguments: Any) -> dict[str, Any]:
        """Wait for a process's end, then ask for its task."""
        waited = self.call("process", action="wait", process_id=process_id, wait=PATIENCE, **arguments)
        assert waited["structuredContent"]["status"] != "running"
        return self.get(identity)


@pytest.fixture(params=["local", pytest.param("docker", marks=pytest.mark.engine)])
def toml(request: pytest.FixtureRequest) -> str:
    """The configuration, on both engines."""
    return TOML.replace('"local"', f'"{request.param}"')


@contextlib.contextmanager
def modern_client(folder: Path, toml: str = TOML) -> Iterator[ModernClient]:
    (folder / "skills.toml").write_text(SKILLS, encoding="utf-8")
    with raw_client(folder, toml) as raw:
        yield ModernClient(raw)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RawClient]:
    """One server for all tests that do nothing to it."""
    with modern_client(tmp_path_factory.mktemp("serve")) as client:
        yield client.raw


@pytest.fixture
def client(server: RawClient, request: pytest.FixtureRequest) -> Iterator[ModernClient]:
    """A client with a task of its own, which is closed with the test."""
    client = ModernClient(server, request.node.name[:100])
    yield client
    client.call("sandbox", action="close")


def forged(identity: str, words: slice, other: Sequence[str]) -> str:
    """An id with other words in it."""
    plain = base64.urlsafe_b64decode(identity + "=" * (-len(identity) % 4)).decode().split(" ", 2)
    plain[words] = other
    return base64.urlsafe_b64encode(" ".join(plain).encode()).decode().rstrip("=")


# --- what is declared ----------------------------------------------------------------------------------------------


def test_the_extension_is_declared_and_nothing_of_the_earlier_revisions_tasks_is_there(client: ModernClient) -> None:
    capabilities = client.result("server/discover")["capabilities"]
    for removed in ("tasks/list", "tasks/result"):
        assert client.error(removed, taskId="x")["code"] == METHOD_NOT_FOUND
    hinted = client.result("tools/call", name="terminal", arguments={"command": "true"}, task={"ttl": 60000})
    assert hinted["resultType"] == "complete"
    assert capabilities["extensions"] == {EXTENSION: {}}
    assert "tasks" not in capabilities


def test_a_client_of_an_earlier_revision_has_no_tasks_whatever_it_declares(tmp_path: Path) -> None:
    with raw_client(tmp_path) as client:
        capabilities = {"extensions": {EXTENSION: {}}}
        info = {"name": "raw", "version": "1"}
        client.ask("initialize", protocolVersion="2025-11-25", capabilities=capabilities, clientInfo=info)
        client.say({"jsonrpc": "2.0", "method": "notifications/initialized"})
        result = client.run_command("sleep 60", background=True)
        assert result["structuredContent"]["status"] == "running"
        assert "taskId" not in result
        for method in ("tasks/get", "tasks/update", "tasks/cancel"):
            assert client.ask(method, taskId="x", inputResponses={})["error"]["code"] == METHOD_NOT_FOUND


def test_a_request_that_does_not_declare_the_extension_is_answered_as_ever_and_refused_the_methods(
    client: ModernClient,
) -> None:
    plain = client.terminal("sleep 60", declares=False, background=True)
    assert (plain["resultType"], plain["structuredContent"]["status"]) == ("complete", "running")
    assert "taskId" not in plain
    identity = client.start("sleep 60")
    for method in ("tasks/get", "tasks/update", "tasks/cancel"):
        error = client.error(method, declares=False, taskId=identity, inputResponses={})
        assert error["code"] == MISSING_CAPABILITY
        assert error["data"] == {"requiredCapabilities": {"extensions": {EXTENSION: {}}}}
    assert client.get(identity)["status"] == "working"


# --- a task's life -------------------------------------------------------------------------------------------------


def test_a_command_in_the_background_is_a_task_that_ends_with_the_calls_own_answer(tmp_path: Path, toml: str) -> None:
    with modern_client(tmp_path, toml) as client:
        created = client.terminal(UNTIL_GO, background=True, timeout=180)
        assert created["resultType"] == "task"
        assert created["status"] == "working"
        assert not {"result", "error", "task", "content", "inputRequests", "requestState", "ttl"} & set(created)

        working = client.get(created["taskId"])
        assert (working["resultType"], working["status"]) == ("complete", "working")
        assert working["taskId"] == created["taskId"]
        assert working["createdAt"] == created["createdAt"]

        foreground = client.terminal("touch go; echo begun; echo done; exit 3")
        ended = client.end(created["taskId"])
    assert (ended["resultType"], ended["status"]) == ("complete", "completed")
    result = ended["result"]
    assert result["isError"] is False
    (said,) = result["content"]
    assert said["text"].startswith("[exit 3 in ")
    assert said["_meta"] == {"taskcell/source": "server"}
    for differs in ("duration_ms", "process_id"):
        del result["structuredContent"][differs], foreground["structuredContent"][differs]
    assert result["structuredContent"] == foreground["structuredContent"]
    assert set(result) | {"_meta"} == set(foreground) | {"_meta"}


def test_a_command_without_a_time_out_is_no_task_for_nobody_waits_for_its_end(client: ModernClient) -> None:
    started = client.terminal("sleep 60", background=True)
    assert (started["resultType"], started["structuredContent"]["status"]) == ("complete", "running")
    assert "taskId" not in started


def test_a_command_that_is_still_running_after_the_wait_is_a_task(client: ModernClient) -> None:
    short, long = client.terminal("echo 1", wait=PATIENCE), client.terminal(UNTIL_GO, wait=0.1)
    assert (short["resultType"], short["structuredContent"]["status"]) == ("complete", "exited")
    assert (long["resultType"], long["status"]) == ("task", "working")
    client.terminal("touch go")
    assert client.end(long["taskId"], "p2")["result"]["structuredContent"]["exit_code"] == 3


def test_a_skill_that_goes_on_is_a_task_and_its_failure_is_in_the_result(client: ModernClient) -> None:
    created = client.call("sh_run", line="echo out; echo err >&2; until [ -e go ]; do sleep 0.02; done; exit 4")
    assert created["resultType"] == "task"
    client.terminal("touch go")
    ended = client.end(created["taskId"])
    assert ended["status"] == "completed"
    assert ended["result"]["isError"] is True
    content = ended["result"]["structuredContent"]
    assert (content["stdout"], content["stderr"], content["exit_code"]) == ("out\n", "err\n", 4)


def test_a_timeout_completes_the_task_with_an_error_in_the_result(client: ModernClient) -> None:
    for number, timeout in enumerate(TIMEOUTS, 1):
        ended = client.end(client.start("echo partial; sleep 600", timeout=timeout), f"p{number}")
        if ended["result"]["structuredContent"]["stdout"]:  # else a busy machine had not begun
            break
    assert ended["status"] == "completed"
    assert ended["result"]["isError"] is True
    assert ended["result"]["structuredContent"]["status"] == "timed_out"
    assert ended["result"]["structuredContent"]["stdout"] == "partial\n"


def test_the_result_is_as_free_of_control_sequences_as_the_call_wanted_it(client: ModernClient) -> None:
    line = r"sleep 0.1; printf '\033[31mred\033[0m\n'"
    plain = client.end(client.start(line, pty=True, strip_ansi=True))
    colour = client.end(client.start(line, pty=True), "p2")
    piped = client.end(client.start(line), "p3")
    assert plain["result"]["structuredContent"]["stdout"] == "red\n"
    assert colour["result"]["structuredContent"]["stdout"] == "\033[31mred\033[0m\n"
    assert piped["result"]["structuredContent"]["stdout"] == "red\n"


def test_the_end_can_be_asked_for_again_also_where_the_sandbox_was_for_this_call_alone(client: ModernClient) -> None:
    usual = client.start("sleep 0.1; echo usual")
    assert client.end(usual) == client.get(usual)
    alone = client.call("once_run", line="echo alone; until [ -e go ]; do sleep 0.02; done")["taskId"]
    client.terminal("touch go")

    def has_ended() -> bool:
        return client.get(alone)["status"] == "completed"

    assert eventually(has_ended)
    first = client.get(alone)

    def sandboxes() -> list[str]:
        status = client.call("sandbox", action="status")["structuredContent"]
        return [box["profile"] for box in status["sandboxes"]]

    assert eventually(lambda: sandboxes() == ["terminal"])
    assert client.get(alone) == first
    assert client.result("tasks/cancel", taskId=alone).keys() == {"resultType", "_meta"}
    assert first["result"]["structuredContent"]["stdout"] == "alone\n"


def test_what_is_told_of_a_task_that_works_is_new(client: ModernClient) -> None:
    identity = client.start(r"printf 'one\n\033[1mtwo\033[0m\n'; until [ -e go ]; do sleep 0.02; done")
    assert eventually(lambda: client.get(identity)["statusMessage"].endswith(r"the newest: 'one\ntwo'"))
    assert "process p1; 16 bytes of output so far" in client.get(identity)["statusMessage"]


def test_times_are_whole_and_a_task_is_not_given_up_before_its_command(client: ModernClient) -> None:
    brief = client.get(client.start("sleep 60", timeout=90))
    long = client.get(client.start("sleep 60", timeout=600))
    ended = client.end(client.start("true; sleep 0.1"), "p3")
    for state in (brief, long, ended):
        assert all(isinstance(state[name], int) for name in ("ttlMs", "pollIntervalMs"))
        assert 500 <= state["pollIntervalMs"] <= 5000
        created, updated = (datetime.fromisoformat(state[name]) for name in ("createdAt", "lastUpdatedAt"))
        assert created.tzinfo is not None
        assert updated >= created
        # The sandbox is there so long after the end, by its idle_ttl.
        assert state["ttlMs"] >= 120_000
    assert brief["ttlMs"] < 140_000
    assert 600_000 < long["ttlMs"] < 640_000
    assert ended["ttlMs"] < 140_000


# --- cancel and update ---------------------------------------------------------------------------------------------


def test_a_cancel_kills_everything_is_acknowledged_and_changes_nothing_the_second_time(
    tmp_path: Path, toml: str
) -> None:
    mark = marker()
    with modern_client(tmp_path, toml) as client:
        identity = client.start(f"trap '' TERM; setsid sleep {mark} & echo begun; sleep {mark}")
        assert eventually(lambda: len(alive(mark)) >= 2)
        assert client.result("tasks/cancel", taskId=identity).keys() == {"resultType", "_meta"}
        assert not alive(mark)
        state = client.get(identity)
        assert state["status"] == "cancelled"
        assert "survivors 0" in state["statusMessage"]
        assert not {"result", "error"} & set(state)
        assert client.result("tasks/cancel", taskId=identity)["resultType"] == "complete"
        assert client.get(identity) == state


def test_a_cancel_of_a_task_that_has_ended_leaves_its_result(client: ModernClient) -> None:
    mark = marker()
    identity = client.start(f"(sleep {mark} </dev/null >/dev/null 2>&1 &) ; sleep 0.1; echo ended")
    ended = client.end(identity)
    assert client.result("tasks/cancel", taskId=identity)["resultType"] == "complete"
    assert client.get(identity) == ended
    assert alive(mark)
    assert ended["status"] == "completed"


def test_a_process_that_is_killed_by_its_tool_is_a_cancelled_task_and_one_that_a_signal_ends_is_not(
    client: ModernClient,
) -> None:
    killed, signalled = client.start("sleep 60"), client.start("sleep 60")
    client.call("process", action="kill", process_id="p1")
    client.call("process", action="signal", process_id="p2", signal="KILL")
    assert client.get(killed)["status"] == "cancelled"
    ended = client.end(signalled, "p2")
    assert ended["status"] == "completed"
    assert ended["result"]["structuredContent"]["status"] == "killed"


def test_an_update_of_a_task_that_asks_nothing_is_acknowledged(client: ModernClient) -> None:
    identity = client.start("sleep 60")
    answer = client.result("tasks/update", taskId=identity, inputResponses={"unknown": {"action": "accept"}})
    assert answer.keys() == {"resultType", "_meta"}
    assert client.get(identity)["status"] == "working"


# --- who may ask ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["tasks/get", "tasks/update", "tasks/cancel"])
def test_an_id_that_was_not_given_out_is_unknown(client: ModernClient, method: str) -> None:
    identity = client.start("sleep 60")
    other = forged(identity, slice(0, 1), ["A" * 22])
    wrong = [other, forged(identity, slice(0, 1), ["é"]), forged(identity, slice(1, 2), ["p2"]), "", "p1", "é", "="]
    wrong += [
        forged(identity, slice(0, 1), [""]),
        forged(identity, slice(2, 3), ["other"]),
        "x" * 100_000,
        identity[:-1] + "*",
        "tasks-nonexistent-1",
    ]
    for guess in wrong:
        error = client.error(method, taskId=guess, inputResponses={})
        assert error["code"] == INVALID_PARAMS, guess
    for broken in ({}, {"taskId": 5}, {"taskId": None}):
        assert client.error(method, **broken, inputResponses={})["code"] == INVALID_PARAMS
    assert client.get(identity)["status"] == "working"


def test_an_id_is_not_good_for_a_later_process_of_the_same_name(client: ModernClient) -> None:
    first = client.start("sleep 60", task_id="t")
    client.call("sandbox", action="close", task_id="t")
    assert client.error("tasks/get", taskId=first)["code"] == INVALID_PARAMS
    second = client.start("sleep 60", task_id="t")
    assert "process p1;" in client.get(second)["statusMessage"]
    error = client.error("tasks/cancel", taskId=first)
    assert (error["code"], "sandbox was closed or replaced" in error["message"]) == (INVALID_PARAMS, True)
    assert client.get(second)["status"] == "working"


def test_a_task_with_any_name_has_an_id_that_fits_into_a_header(tmp_path: Path) -> None:
    with modern_client(tmp_path) as client:
        for name in ("with space", "ü" * 128, "😀" * 128, "a/b?c=d"):
            identity = client.start("sleep 60", task_id=name)
            assert identity.isascii()
            assert identity.replace("-", "").replace("_", "").isalnum()
            assert client.get(identity)["status"] == "working"


@pytest.mark.anyio
async def test_another_principal_has_no_such_task(gateway: GatewayFactory) -> None:
    async with (
        gateway('manifests = []\n[engine]\nkind = "local"\n', engine="local") as gw,
        serving_http(build_server(gw)) as app,
        client_as(app, "one", extensions=[Extension()]) as one,
        client_as(app, "two", extensions=[Extension()]) as two,
    ):
        created = await one.session.call_tool(
            "terminal", {"command": "sleep 60", "background": True, "timeout": 180}, allow_claimed=True
        )
        assert isinstance(created, Created)
        await two.call_tool("terminal", {"command": "true"})
        for method in ("tasks/get", "tasks/cancel"):
            with pytest.raises(MCPError) as caught:
                await ask(two, method, created.task_id)
            assert caught.value.error.code == INVALID_PARAMS
        assert (await ask(one, "tasks/get", created.task_id)).status == "working"


@pytest.mark.anyio
async def test_over_http_the_header_that_requests_are_routed_by_must_name_the_task(gateway: GatewayFactory) -> None:
    async with (
        gateway('manifests = []\n[engine]\nkind = "local"\n', engine="local") as gw,
        serving_http(build_server(gw)) as app,
        http_as(app, "p") as http,
    ):

        async def post(method: str, routed: str | None, **params: Any) -> dict[str, Any]:
            headers = {"accept": "application/json, text/event-stream", "mcp-method": method}
            headers |= {"mcp-protocol-version": "2026-07-28"} | ({} if routed is None else {"mcp-name": routed})
            body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {**params, "_meta": META}}
            answer = await http.post("/mcp", json=body, headers=headers, timeout=PATIENCE)
            line = answer.text if answer.text.startswith("{") else answer.text.partition("data: ")[2]
            found: dict[str, Any] = json.loads(line)
            return found

        arguments = {"command": "sleep 60", "background": True, "timeout": 180}
        created = (await post("tools/call", "terminal", name="terminal", arguments=arguments))["result"]
        identity = created["taskId"]
        assert (await post("tasks/get", identity, taskId=identity))["result"]["status"] == "working"
        for routed in ("another", None):
            error = (await post("tasks/get", routed, taskId=identity))["error"]
            assert error["code"] == HEADER_MISMATCH


# --- subscriptions -------------------------------------------------------------------------------------------------


def test_only_a_client_that_declares_the_extension_may_want_to_be_told_of_tasks(tmp_path: Path) -> None:
    with modern_client(tmp_path) as client:
        identity = client.start("sleep 60")
        wanted = {"taskIds": [identity], "toolsListChanged": True}
        error = client.error("subscriptions/listen", declares=False, notifications=wanted)
        assert error["code"] == MISSING_CAPABILITY
        # None is promised: a client that asks is not told, and reads so.
        client.raw.send("subscriptions/listen", notifications=wanted, _meta=META)
        told = client.raw.hear()
    assert told["method"] == "notifications/subscriptions/acknowledged"
    assert told["params"]["notifications"] == {"toolsListChanged": True}


# --- a sandbox that is gone, a server that is another -------------------------------------------------------------


def test_a_task_whose_sandbox_dies_completes_with_an_error_and_is_not_run_again(tmp_path: Path) -> None:
    with modern_client(tmp_path) as client:
        identity = client.start("echo run >> runs; echo begun; sleep 60")
        assert eventually(lambda: "begun" in client.get(identity)["statusMessage"])
        (supervisor,) = supervisors_of(client.raw.process.pid)
        os.kill(supervisor, signal.SIGKILL)
        assert eventually(lambda: client.get(identity)["status"] == "completed")
        result = client.get(identity)["result"]
    assert result["isError"] is True
    assert result["structuredContent"]["status"] == "lost"


def supervisors_of(pid: int) -> list[int]:
    children = [
        int(word) for task in Path(f"/proc/{pid}/task").iterdir() for word in (task / "children").read_text().split()
    ]
    return [child for child in children if b"supervisor" in Path(f"/proc/{child}/cmdline").read_bytes()]


def test_a_later_server_knows_a_process_by_the_same_key(tmp_path: Path) -> None:
    profile = Profile("terminal", "image", "terminal")
    # As long as a tag can become: control characters are the longest in JSON.
    command = Command(
        TaskKey("p", "t"), "t" * 64, profile, ("sh",), "\x01" * 200, timeout=3599.999, strip_ansi=True, background=True
    )
    about = About.of(command, f"p{10**11}")
    assert 0 < len(about.tag()) <= protocol.TAG_MAX
    assert About.from_tag(about.tag()) == about
    assert About.of(command, "p1").key != about.key
    assert about.key not in repr(about)


@pytest.mark.anyio
async def test_an_id_is_good_for_the_server_that_takes_the_sandbox_up(gateway: GatewayFactory) -> None:
    async with (
        gateway('manifests = []\n[engine]\nkind = "local"\n', engine="local") as gw,
        Client(build_server(gw), mode="2026-07-28", extensions=[Extension()]) as client,
        anyio.create_task_group() as serving,
    ):
        ids = []
        for line in ("echo over; sleep 0.1; exit 3", "sleep 60"):
            created = await client.session.call_tool(
                "terminal", {"command": line, "background": True, "timeout": 90}, allow_claimed=True
            )
            assert isinstance(created, Created)
            ids.append(created.task_id)
        await client.call_tool("process", {"action": "wait", "process_id": "p1"})
        before = await ask(client, "tasks/get", ids[0])

        (slot,) = await gw.pool.of_task(TaskKey(LOCAL_PRINCIPAL, "default"))
        old = slot.sandbox
        assert old is not None
        channel = Channel(old.channel._token, PATIENCE)

        async def is_gone() -> bool:
            return await gw.engine.standing(old.container) is Standing.ENDED

        await serving.start(channel.run, lambda: gw.engine.connect(old.container), is_gone)
        slot.sandbox = Sandbox(old.profile, old.container, channel, old.output_chars, old.spool)
        await slot.sandbox.adopt(["bash", "-c"])

        assert (await ask(client, "tasks/get", ids[0])).result == before.result
        assert (await ask(client, "tasks/get", ids[1])).status == "working"
        await ask(client, "tasks/update", ids[1])
        await ask(client, "tasks/cancel", ids[1])
        assert (await ask(client, "tasks/get", ids[1])).status == "cancelled"
        serving.cancel_scope.cancel()


# --- the official client -------------------------------------------------------------------------------------------


class Created(Result):
    """What creates a task, as a client has it."""

    result_type: Literal["task"] = "task"
    task_id: str
    status: str
    ttl_ms: int
    poll_interval_ms: int


class TaskAsked(RequestParams):
    task_id: str


class TaskRequest(Request[TaskAsked, str]):
    name_param = "taskId"


class State(Result):
    """What is answered of a task; nothing where a request is only acknowledged."""

    status: str | None = None
    result: dict[str, Any] | None = None


async def ask(client: Client, method: str, identity: str) -> State:
    request = TaskRequest(method=method, params=TaskAsked(task_id=identity))
    return await client.session.send_request(request, State)


class Extension(ClientExtension):
    """A client's half: it sees tasks through, and its callers see results only."""

    identifier = EXTENSION

    def __init__(self) -> None:
        self.resolved = 0

    def claims(self) -> Sequence[ResultClaim[Any]]:
        return [ResultClaim(result_type="task", model=Created, resolve=self._resolve)]

    async def _resolve(self, created: Created, context: ClaimContext) -> CallToolResult:
        self.resolved += 1
        while True:
            request = TaskRequest(method="tasks/get", params=TaskAsked(task_id=created.task_id))
            state = await context.session.send_request(request, State)
            if state.status != "working":
                assert state.result is not None
                return CallToolResult.model_validate(state.result, by_name=False)
            await anyio.sleep(created.poll_interval_ms / 1000)


@pytest.mark.anyio
async def test_the_official_client_sees_a_long_command_through_as_one_call(tmp_path: Path) -> None:
    (tmp_path / "skills.toml").write_text(SKILLS, encoding="utf-8")
    extension = Extension()
    with anyio.fail_after(PATIENCE):
        async with serving(tmp_path, TOML, mode="2026-07-28", extensions=[extension]) as (client, _):
            result = await client.call_tool("terminal", {"command": "sleep 1.3; echo built; exit 3"}, meta=ASKED)
            quick = await client.call_tool("terminal", {"command": "echo quick"}, meta=ASKED)
    assert extension.resolved == 1
    assert {"status": "exited", "exit_code": 3, "stdout": "built\n"}.items() <= fields_of(result).items()
    assert fields_of(quick)["stdout"] == "quick\n"
