"""MCP logging: what a client hears of its tasks, if it asks, and how much of it at most."""

from __future__ import annotations

import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp.client.client import Client
from mcp.shared.exceptions import MCPError
from mcp_types import (
    LOG_LEVEL_META_KEY,
    EmptyResult,
    LoggingLevel,
    LoggingMessageNotificationParams,
    SetLevelRequest,
    SetLevelRequestParams,
)

from asking import fields
from gateways import GatewayFactory
from taskcell.config.settings import Settings
from taskcell.gateway.gateway import Gateway
from taskcell.gateway.news import Level, TaskEvent
from taskcell.http.local_door import with_local_door
from taskcell.mcp.client_log import MAX_WAITING, Outlet
from taskcell.mcp.server import build_server
from taskcell.model import TaskKey

pytestmark = pytest.mark.anyio

#: Seconds for what takes a moment.
PATIENCE = 60.0
ERAS = ["legacy", "2026-07-28"]
RULES = (
    'manifests = []\n[engine]\nkind = "local"\n[[policy.rules]]\nname = "no-deploy"\ncommand = "deploy"\n'
    'effect = "deny"\nreason = "Deploying is for people."\n'
)
DENIED = "Denied by the policy's rule 'no-deploy': Deploying is for people."


class Heard:
    """What a client was told."""

    def __init__(self) -> None:
        self.messages: list[LoggingMessageNotificationParams] = []
        self._more = anyio.Event()

    async def callback(self, params: LoggingMessageNotificationParams) -> None:
        self.messages.append(params)
        self._more.set()

    @property
    def said(self) -> list[tuple[str, str]]:
        return [(message.level, message.data["message"]) for message in self.messages]

    async def until(self, word: str) -> dict[str, Any]:
        """The data of the first message with a word in its sentence."""
        with anyio.fail_after(PATIENCE):
            while True:
                for message in self.messages:
                    if word in message.data["message"]:
                        return dict(message.data)
                self._more = anyio.Event()
                await self._more.wait()


@asynccontextmanager
async def listening(gw: Gateway, mode: str = "legacy") -> AsyncIterator[tuple[Client, Heard]]:
    heard = Heard()
    async with Client(build_server(gw), mode=mode, logging_callback=heard.callback) as client:
        yield client, heard


async def ask(client: Client, level: LoggingLevel) -> None:
    request = SetLevelRequest(params=SetLevelRequestParams(level=level))
    await client.session.send_request(request, EmptyResult)


async def run(client: Client, command: str, meta: dict[str, Any] | None = None, **more: Any) -> None:
    made: Any = meta
    await client.call_tool("terminal", {"command": command, **more}, meta=made)


@pytest.mark.parametrize("era", ERAS)
async def test_who_has_not_asked_hears_nothing(gateway: GatewayFactory, era: str) -> None:
    async with gateway(RULES, engine="local") as gw, listening(gw, era) as (client, heard):
        if era == "legacy":
            assert client.server_capabilities is not None
            assert client.server_capabilities.logging is not None
        else:
            assert (await client.session.send_discover(era))["capabilities"]["logging"] == {}
        await run(client, "deploy")
        await run(client, "true")
        assert heard.messages == []


async def test_a_session_hears_of_denials_from_its_level_on_and_of_no_command(gateway: GatewayFactory) -> None:
    async with gateway(RULES, engine="local") as gw, listening(gw) as (client, heard):
        await ask(client, "error")
        await run(client, "deploy --token hidden-in-the-command")
        await ask(client, "warning")
        await run(client, "deploy --token hidden-in-the-command", task_id="second")
        told = await heard.until("no-deploy")
        assert told == {
            "message": DENIED,
            "event": "denied",
            "task_id": "second",
            "tool": "terminal",
            "code": "denied",
            "rule": "no-deploy",
        }
        assert [message.logger for message in heard.messages] == ["taskcell"]
        await ask(client, "emergency")
        await run(client, "deploy")
        await ask(client, "debug")
        await run(client, "echo output-of-it; cat", stdin="input-of-it", env={"NAME": "value-of-it"})
        await heard.until("A call of terminal was done")
        assert [message.level for message in heard.messages] == ["warning", "debug", "debug"]
        everything = str(heard.messages)
        for secret in ("hidden-in", "output-of-it", "input-of-it", "value-of-it"):
            assert secret not in everything


async def test_a_session_hears_of_what_ends_in_the_background_and_of_a_sandbox_that_is_lost(
    gateway: GatewayFactory,
) -> None:
    async with gateway(RULES, engine="local") as gw, listening(gw) as (client, heard):
        await ask(client, "info")
        await run(client, "until test -e go; do sleep 0.01; done; exit 7", background=True)
        await run(client, "touch go")
        ended = await heard.until("p1 of terminal has ended with exit code 7")
        assert (ended["event"], ended["status"], ended["exit_code"]) == ("end", "exited", 7)
        await run(client, "sleep 1000", background=True)
        (slot,) = gw.pool.slots
        assert slot.sandbox is not None
        await gw.engine.remove(slot.sandbox.container)
        lost = await heard.until("p3 of terminal was lost with its sandbox")
        assert (lost["status"], lost["exit_code"]) == ("lost", None)
        await run(client, "true")
        await heard.until("was replaced")
        assert [message.level for message in heard.messages] == ["info", "error", "notice"]


async def test_a_session_hears_that_the_files_of_a_task_were_put_back(gateway: GatewayFactory, tmp_path: Path) -> None:
    toml = RULES + "[pool]\nmax_sandboxes = 1\n"
    async with gateway(toml, engine="local", state=tmp_path / "state") as gw, listening(gw) as (client, heard):
        await ask(client, "notice")
        await run(client, "echo kept > file", task_id="one")
        await run(client, "true", task_id="two")
        await run(client, "true", task_id="one")
        told = await heard.until("its files")
        assert (told["event"], told["task_id"]) == ("sandbox", "one")


async def test_in_the_later_era_a_call_hears_of_its_own_task_before_its_answer(gateway: GatewayFactory) -> None:
    asked = {LOG_LEVEL_META_KEY: "warning"}
    async with gateway(RULES, engine="local") as gw, listening(gw, ERAS[1]) as (client, heard):
        await run(client, "deploy", asked, task_id="mine")
        assert heard.said == [("warning", DENIED)]
        await run(client, "deploy", task_id="mine")
        await run(client, "true", asked, task_id="mine")
        assert len(heard.messages) == 1
        async with anyio.create_task_group() as calls:
            calls.start_soon(run, client, "until test -e done; do sleep 0.01; done", asked)
            await run(client, "deploy", task_id="another one's")
            await run(client, "touch done")
        assert len(heard.messages) == 1
        with pytest.raises(MCPError):
            await ask(client, "debug")


async def test_a_protocol_error_reaches_a_client_that_listens_as_it_is(gateway: GatewayFactory) -> None:
    meta: Any = {LOG_LEVEL_META_KEY: "debug"}
    async with gateway(RULES, engine="local") as gw, listening(gw, ERAS[1]) as (client, _):
        with pytest.raises(MCPError, match="Unknown tool"):
            await client.session.call_tool("terminall", {}, meta=meta)


@pytest.mark.parametrize("era", ERAS)
async def test_a_client_hears_of_a_task_that_another_server_has(
    gateway: GatewayFactory, tmp_path: Path, era: str
) -> None:
    def opened() -> Any:
        return with_local_door(lambda: gateway(RULES, engine="local", state=tmp_path), Settings(), isolated=False)

    async with opened() as first, opened() as second, listening(first) as (owner, _):
        await fields(owner, "terminal", {"command": "true"})
        async with listening(second, era) as (client, heard):
            if era == "legacy":
                await ask(client, "warning")
            await run(client, "deploy", {LOG_LEVEL_META_KEY: "warning"})
            assert await heard.until("no-deploy")
            assert len(heard.messages) == 1


async def test_of_a_flood_a_client_is_sent_the_first_and_how_many_more_there_were() -> None:
    sent: list[LoggingMessageNotificationParams] = []

    async def send(message: LoggingMessageNotificationParams) -> None:
        sent.append(message)

    outlet = Outlet(Level.DEBUG, send)
    for number in range(1000):
        outlet.hear(TaskEvent(TaskKey("local", "t"), Level.INFO, "call", f"number {number}"))
    outlet.end()
    with anyio.fail_after(PATIENCE):
        await outlet.run()
    assert [message.data["message"] for message in sent] == [
        *(f"number {number}" for number in range(MAX_WAITING)),
        f"{1000 - MAX_WAITING} more messages were left out: there were too many at once.",
    ]


async def test_the_server_starts_without_a_warning_of_the_sdk(gateway: GatewayFactory) -> None:
    async with gateway(RULES, engine="local") as gw:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            build_server(gw)
