"""A rule that asks: the person is asked through the client in both eras, and only a yes lets one call pass."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from mcp.client.client import Client
from mcp.shared.exceptions import MCPError
from mcp_types import CallToolResult, ElicitResult, InputRequiredResult, TextContent

from gateways import GatewayFactory
from http_door import client_as, serving_http
from taskcell.mcp.server import build_server

pytestmark = pytest.mark.anyio

ASKING = """\
manifests = []
[engine]
kind = "local"
[[policy.rules]]
name = "careful"
tool = "terminal"
command = "deploy"
effect = "ask"
reason = "This reaches production."
"""
ERAS = ["legacy", "2026-07-28"]
CALL = {"command": "echo deploy > made; echo ran"}


def text_of(result: Any) -> str:
    assert isinstance(result, CallToolResult)
    return "".join(block.text for block in result.content if isinstance(block, TextContent))


class Person:
    """Answers each question as the test wants it."""

    def __init__(self, action: str) -> None:
        self.action = action
        self.asked: list[str] = []

    async def __call__(self, context: Any, params: Any) -> ElicitResult:
        self.asked.append(params.message)
        assert params.requested_schema == {"type": "object", "properties": {}}
        return ElicitResult.model_validate({"action": self.action, "content": {} if self.action == "accept" else None})


@asynccontextmanager
async def client_of(gateway: GatewayFactory, mode: str, person: Person | None) -> AsyncIterator[Client]:
    async with (
        gateway(ASKING, engine="local") as gw,
        Client(build_server(gw), mode=mode, elicitation_callback=person) as client,
    ):
        yield client


@pytest.mark.parametrize("mode", ERAS)
async def test_a_yes_lets_this_one_call_pass(gateway: GatewayFactory, mode: str) -> None:
    person = Person("accept")
    async with client_of(gateway, mode, person) as client:
        assert "ran" in text_of(await client.call_tool("terminal", CALL))
        (question,) = person.asked
        assert CALL["command"] in question
        assert "The rule 'careful' asks: This reaches production." in question
        await client.call_tool("terminal", CALL)
        assert len(person.asked) == 2
        await client.call_tool("terminal", {"command": "echo harmless"})
        assert len(person.asked) == 2


@pytest.mark.parametrize("mode", ERAS)
@pytest.mark.parametrize(("action", "words"), [("decline", "does not allow this"), ("cancel", "has not answered")])
async def test_a_no_denies_and_nothing_runs(gateway: GatewayFactory, mode: str, action: str, words: str) -> None:
    async with client_of(gateway, mode, Person(action)) as client:
        denied = await client.call_tool("terminal", CALL)
        assert denied.is_error
        assert words in text_of(denied)
        assert "made" not in text_of(await client.call_tool("list_files", {"path": "."}))


@pytest.mark.parametrize("mode", ERAS)
async def test_a_client_that_cannot_ask_is_denied_with_the_reason(gateway: GatewayFactory, mode: str) -> None:
    async with client_of(gateway, mode, None) as client:
        denied = await client.call_tool("terminal", CALL)
        assert denied.is_error
        assert "'careful'" in text_of(denied)
        assert "This reaches production." in text_of(denied)


async def test_the_question_shows_control_characters_and_the_end_of_a_long_command(gateway: GatewayFactory) -> None:
    person = Person("decline")
    async with client_of(gateway, "2026-07-28", person) as client:
        line = "deploy \x1b[2K" + "a" * 10_000 + " the-end"
        await client.call_tool("terminal", {"command": line})
    (question,) = person.asked
    assert "\x1b" not in question
    assert "the-end" in question
    assert "characters more" in question
    assert len(question) < 5000


class Rounds:
    """A client over HTTP that answers questions by hand, as it likes."""

    def __init__(self, client: Client) -> None:
        self.client = client

    async def call(self, arguments: dict[str, Any], **more: Any) -> Any:
        return await self.client.session.call_tool("terminal", arguments, allow_input_required=True, **more)

    async def question(self, arguments: dict[str, Any]) -> InputRequiredResult:
        asked = await self.call(arguments)
        assert isinstance(asked, InputRequiredResult)
        return asked


async def test_an_answer_counts_once_and_for_this_principal_tool_and_arguments(gateway: GatewayFactory) -> None:
    yes = {"confirm": ElicitResult(action="accept", content={})}
    async with (
        gateway(ASKING, engine="local") as gw,
        serving_http(build_server(gw)) as app,
        client_as(app, "ada", elicitation_callback=Person("accept")) as ada,
        client_as(app, "bob", elicitation_callback=Person("accept")) as bob,
    ):
        mine, other = Rounds(ada), Rounds(bob)
        state = (await mine.question(CALL)).request_state
        for rounds, arguments in ((other, CALL), (mine, {"command": "deploy something else"})):
            with pytest.raises(MCPError, match="Invalid or expired requestState"):
                await rounds.call(arguments, input_responses=yes, request_state=state)
        for forged in ("careful\0x", "v1.AAAA", str(state)[:-2]):
            with pytest.raises(MCPError, match="Invalid or expired requestState"):
                await mine.call(CALL, input_responses=yes, request_state=forged)
        assert "ran" in text_of(await mine.call(CALL, input_responses=yes, request_state=state))
        again = await mine.call(CALL, input_responses=yes, request_state=state)
        assert "was used for a call already" in text_of(again)


async def test_an_answer_without_a_question_is_no_confirmation(gateway: GatewayFactory) -> None:
    yes = {"confirm": ElicitResult(action="accept", content={})}
    async with client_of(gateway, "2026-07-28", Person("accept")) as client:
        assert isinstance(await Rounds(client).call(CALL, input_responses=yes), InputRequiredResult)
        state = (await Rounds(client).question(CALL)).request_state
        assert "brings no answer" in text_of(await Rounds(client).call(CALL, request_state=state))
