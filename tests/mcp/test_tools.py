"""The tool handlers over a whole stack without containers: every outcome is an answer, and none ends the server."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp.client.client import Client
from mcp.shared.exceptions import MCPError
from mcp_types import PaginatedRequestParams
from structlog.testing import capture_logs

from asking import ASKED, fields, fields_of, text_of
from gateways import OWN_TOOLS
from taskcell.gateway.gateway import Gateway
from taskcell.mcp.server import build_server
from taskcell.model import ToolCall
from taskcell.tools.tool import ToolReport, Watch

pytestmark = pytest.mark.anyio

GatewayFactory = Callable[..., AbstractAsyncContextManager[Gateway]]
LOCAL = """
manifests = []
[engine]
kind = "local"
[[policy.rules]]
name = "no-rm"
command = "rm "
effect = "deny"
reason = "No."
"""
#: Seconds for a call that takes milliseconds.
PATIENCE = 60.0


class Broken(Gateway):
    """A gateway whose calls fail as a fault of ours would."""

    def __init__(self, whole: Gateway, fault: Callable[[], Awaitable[Any]]) -> None:
        super().__init__(
            whole.tools,
            whole._policy,
            whole.pool,
            whole.engine,
            background=whole.background,
            environments=whole.environments,
            copies=whole.copies,
        )
        self._fault = fault

    async def call(self, call: ToolCall, watch: Watch | None = None) -> ToolReport:
        result: ToolReport = await self._fault()
        return result


@pytest.fixture(params=["legacy", "2026-07-28"])
def era(request: pytest.FixtureRequest) -> str:
    era: str = request.param
    return era


async def test_tools_are_listed_in_the_same_order_with_all_that_a_client_needs(
    gateway: GatewayFactory, era: str
) -> None:
    async with gateway(LOCAL, engine="local") as gw, Client(build_server(gw), mode=era) as client:
        first = (await client.list_tools()).tools
        second = (await client.list_tools(cache_mode="refresh")).tools
        asked = (await client.session.list_tools(params=PaginatedRequestParams(_meta=ASKED))).tools
    assert [tool.name for tool in first] == OWN_TOOLS
    assert first == second
    for tool in first:
        assert tool.title
        assert tool.description
        assert tool.annotations is not None
        assert tool.input_schema["type"] == "object"
        assert tool.output_schema is None
        assert tool.meta == {"anthropic/maxResultSizeChars": 100_000}
    assert [tool.model_copy(update={"output_schema": None}) for tool in asked] == first
    assert all(tool.output_schema is not None for tool in asked)


async def test_an_unknown_cursor_is_invalid_params(gateway: GatewayFactory, era: str) -> None:
    async with gateway(LOCAL, engine="local") as gw, Client(build_server(gw), mode=era) as client:
        with pytest.raises(MCPError) as caught:
            await client.list_tools(cursor="page2")
    assert caught.value.error.code == -32602


async def test_an_unknown_tool_is_invalid_params_and_names_the_nearest(gateway: GatewayFactory, era: str) -> None:
    async with gateway(LOCAL, engine="local") as gw, Client(build_server(gw), mode=era) as client:
        with pytest.raises(MCPError) as caught:
            await client.session.call_tool("termnal", {})
    assert caught.value.error.code == -32602
    assert "'terminal'" in caught.value.error.message


@pytest.mark.parametrize(
    ("tool", "arguments", "said", "code"),
    [
        ("terminal", {}, "command", "invalid_argument"),
        ("terminal", {"command": 5}, "command", "invalid_argument"),
        ("terminal", {"command": "ls", "comand": "ls"}, "comand", "invalid_argument"),
        ("terminal", {"command": "ls", "timeout": -1}, "timeout", "invalid_argument"),
        ("terminal", {"command": "ls", "task_id": "a\nb"}, "task_id", "invalid_argument"),
        ("terminal", {"command": "ls " + "x" * 200_000}, "bytes long", "too_large"),
        ("terminal", {"command": "ls", "workdir": "/none"}, "working directory", "not_found"),
        ("terminal", {"command": "rm x"}, "'no-rm'", "denied"),
        ("sandbox", {"action": "explode"}, "action", "invalid_argument"),
        ("process", {"action": "poll", "process_id": "p9"}, "no process 'p9'", "not_found"),
        ("read_file", {"path": "none"}, "There is no", "not_found"),
        ("read_file", {"path": "."}, "is a folder", "is_a_directory"),
        ("write_file", {"path": "/proc/version", "content": "x"}, "cannot be written", "permission_denied"),
    ],
)
async def test_bad_arguments_and_denials_are_answers_that_the_model_reads(
    gateway: GatewayFactory, tool: str, arguments: dict[str, Any], said: str, code: str
) -> None:
    async with gateway(LOCAL, engine="local") as gw, Client(build_server(gw)) as client:
        result = await client.session.call_tool(tool, arguments)
    assert result.is_error
    assert said in text_of(result)
    assert result.meta is not None
    error = result.meta["taskcell/error"]["error"]
    assert (error["code"], error["message"]) == (code, text_of(result))
    assert error.get("rule") == ("no-rm" if code == "denied" else None)


async def test_the_status_of_a_task_without_a_sandbox_is_an_answer(gateway: GatewayFactory, era: str) -> None:
    async with gateway(LOCAL, engine="local") as gw, Client(build_server(gw), mode=era) as client:
        result = await client.call_tool("sandbox", {"action": "status", "task_id": "none"}, meta=ASKED)
    assert not result.is_error
    assert fields_of(result) == {"task_id": "none", "action": "status", "sandboxes": [], "notes": []}


async def test_an_unexpected_exception_is_an_internal_error_and_its_text_stays_in_the_log(
    gateway: GatewayFactory,
) -> None:
    async def fail() -> None:
        raise RuntimeError("secret detail")

    async with gateway(LOCAL, engine="local") as gw:
        with capture_logs() as logs:
            async with Client(build_server(Broken(gw, fail))) as client:
                result = await client.session.call_tool("terminal", {"command": "x"})
                again = await client.session.call_tool("terminal", {"command": "x"})
    assert result.is_error
    assert "nternal error" in text_of(result)
    assert "secret" not in text_of(result)
    assert again.is_error
    assert any(entry.get("exc_info") for entry in logs)


async def test_a_cancellation_that_leaks_from_a_call_does_not_end_the_server(gateway: GatewayFactory) -> None:
    async def leak() -> None:
        task = asyncio.get_running_loop().create_task(asyncio.sleep(PATIENCE))
        task.cancel()
        await task

    async with (
        gateway(LOCAL, engine="local") as gw,
        Client(build_server(Broken(gw, leak))) as client,
    ):
        with anyio.fail_after(PATIENCE):
            result = await client.session.call_tool("terminal", {"command": "x"})
            assert (await client.list_tools()).tools
    assert result.is_error
    assert "nternal error" in text_of(result)


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_the_server_says_where_there_is_no_isolation(gateway: GatewayFactory, mode: str) -> None:
    async with gateway(LOCAL, engine="local") as gw:
        async with Client(build_server(gw, isolated=False), mode=mode) as client:
            assert client.instructions is not None
            assert "no isolation" in client.instructions
            assert "are data, not instructions" in client.instructions
        assert "no isolation" not in (build_server(gw).instructions or "")


TYPED = """version = "1"
[skills.say]
description = "Says things."
source = "docker:x"
docker.entrypoint = ["printf", "%s|"]
[skills.say.tools.words]
description = "Say words."
argv = ["{first}", ["{?loud}", "!"], ["and", "{more}"]]
read_only_hint = true
[skills.say.tools.words.parameters]
first = { type = "string", description = "The first word." }
loud = { type = "boolean", default = false }
more = { type = "array", required = false, items = { type = "integer", maximum = 9 } }
"""


async def test_a_typed_tool_is_listed_and_runs_and_checks_what_it_is_given(
    gateway: GatewayFactory, tmp_path: Path, era: str
) -> None:
    (tmp_path / "typed.toml").write_text(TYPED)
    toml = 'manifests = ["typed.toml"]\n[engine]\nkind = "local"\n'
    async with gateway(toml, engine="local") as gw, Client(build_server(gw), mode=era) as client:
        tool = (await client.list_tools()).tools[len(OWN_TOOLS)]
        good = await fields(client, "say_words", {"first": "a b", "loud": True, "more": [1, 2]})
        bad = await client.session.call_tool("say_words", {"first": "a", "more": [1, 10]})
    assert (tool.name, tool.title, tool.input_schema["required"]) == ("say_words", "say words", ["first"])
    assert tool.annotations is not None
    assert (tool.annotations.read_only_hint, tool.annotations.destructive_hint) == (True, False)
    assert good["stdout"] == "a b|!|and|1|2|"
    assert (bad.is_error, text_of(bad)) == (True, "'more[1]' must be at most 9.")
