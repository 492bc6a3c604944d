"""Progress of one call: its newest lines, and signs of life while it is silent."""

from __future__ import annotations

import itertools
import re
import time

import anyio
import pytest
from mcp.client.client import Client as McpClient

from gateways import GatewayFactory
from taskcell.gateway.gateway import Gateway
from taskcell.mcp.progress import HEARTBEAT, Progress
from taskcell.mcp.server import build_server
from taskcell.model import ToolCall

pytestmark = pytest.mark.anyio

TOML = 'manifests = []\n[engine]\nkind = "local"\n'
#: Seconds between signs of life in these tests, and for anything here on a busy machine.
BEAT = 0.25
PATIENCE = 90.0


class Client:
    """Keeps what it is told."""

    def __init__(self, enough: int = 1_000_000) -> None:
        self.told: list[tuple[float, str]] = []
        self.enough = enough
        self.has_enough = anyio.Event()

    async def report(self, number: float, message: str) -> None:
        self.told.append((number, message))
        if len(self.told) >= self.enough:
            self.has_enough.set()

    @property
    def messages(self) -> list[str]:
        return [message for _, message in self.told]

    def assert_growing(self) -> None:
        numbers = [number for number, _ in self.told]
        assert all(earlier < later for earlier, later in itertools.pairwise(numbers)), numbers


async def run(gw: Gateway, client: Client, line: str, heartbeat: float) -> float:
    """Run a command to its end; the seconds that it took."""
    progress, began = Progress(client.report, heartbeat), time.monotonic()
    call = ToolCall("p", "terminal", {"command": line, "wait": PATIENCE})
    with anyio.fail_after(PATIENCE):
        await progress.report_while(lambda: gw.call(call, progress.watch))
    return time.monotonic() - began


async def test_a_silent_command_gives_signs_of_life_at_a_bounded_rate(gateway: GatewayFactory) -> None:
    client = Client()
    async with gateway(TOML, engine="local") as gw:
        seconds = await run(gw, client, "sleep 2.6", BEAT)
    assert 2 <= len(client.told) <= seconds / BEAT
    said = re.compile(r"Still (running after \d+ s, no output|at work after \d+ s)\.")
    assert all(said.fullmatch(message) for message in client.messages)
    assert re.match(r"Still running after [2-9] s", client.messages[-1])
    client.assert_growing()


async def test_the_numbers_grow_through_output_and_silence(gateway: GatewayFactory) -> None:
    client = Client()
    line = "sleep 1; echo one; sleep 2; echo two; sleep 1"
    async with gateway(TOML, engine="local") as gw:
        await run(gw, client, line, BEAT)
    kinds = {re.sub(r"\d+", "N", message) for message in client.messages}
    assert {"Still running after N s, no output.", "Still running after N s, no output for N s."} <= kinds
    assert {"one", "one\ntwo"} <= kinds
    client.assert_growing()


async def test_a_command_that_prints_is_not_reported_as_silent(gateway: GatewayFactory) -> None:
    client = Client()
    async with gateway(TOML, engine="local") as gw:
        await run(gw, client, "for i in $(seq 20); do echo $i; sleep 0.1; done", HEARTBEAT)
    assert client.messages
    assert not any(message.startswith("Still") for message in client.messages)


async def test_a_call_that_has_no_process_yet_gives_signs_of_life_too() -> None:
    client = Client(enough=3)
    progress = Progress(client.report, BEAT)
    with anyio.fail_after(PATIENCE):
        await progress.report_while(client.has_enough.wait)
    assert all(re.fullmatch(r"Still at work after \d+ s\.", message) for message in client.messages)
    client.assert_growing()


async def test_a_client_that_takes_no_message_gets_one_sign_of_life_and_holds_up_nothing() -> None:
    calls, released = 0, anyio.Event()

    async def report(number: float, message: str) -> None:
        nonlocal calls
        calls += 1
        released.set()
        await anyio.sleep_forever()

    async def call() -> str:
        await released.wait()
        await anyio.sleep(4 * BEAT)
        return "the answer"

    progress = Progress(report, BEAT)
    with anyio.fail_after(PATIENCE):
        assert await progress.report_while(call) == "the answer"
    assert calls == 1


@pytest.mark.parametrize("era", ["legacy", "2026-07-28"])
async def test_a_client_in_the_servers_own_process_hears_progress_too(gateway: GatewayFactory, era: str) -> None:
    heard: list[str | None] = []
    news = anyio.Event()

    async def hear(number: float, total: float | None, message: str | None) -> None:
        heard.append(message)
        news.set()

    async with gateway(TOML, engine="local") as gw, McpClient(build_server(gw), mode=era) as client:
        with anyio.fail_after(PATIENCE):
            async with anyio.create_task_group() as calls:
                arguments = {"command": "echo one; sleep 600", "wait": PATIENCE}
                calls.start_soon(lambda: client.call_tool("terminal", arguments, progress_callback=hear))
                await news.wait()
                calls.cancel_scope.cancel()
    assert heard[0] == "one"
