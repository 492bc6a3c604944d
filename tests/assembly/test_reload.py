"""Manifests that change under a serving `taskcell serve`, as real clients of both eras see it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import StdioServerParameters
from mcp.client.client import Client
from mcp.client.stdio import stdio_client
from mcp_types import ToolListChangedNotification

import taskcell
from asking import ASKED, fields, fields_of
from gateways import OWN_TOOLS
from observe import eventually
from raw_client import LOCAL, PATIENCE, command, raw_client

pytestmark = pytest.mark.anyio

TOML = 'manifests = ["skills"]\n' + LOCAL
SKILL = """version = "1"
[skills.{name}]
description = "{description}"
source = "docker:x"
docker.entrypoint = ["sh", "-c"]
"""
#: The official client passes no such variable on, and the server must be the one that these tests import.
SOURCES = str(Path(taskcell.__file__).parents[1])
ERAS = ["legacy", "2026-07-28"]
#: Seconds in which nothing must come: some looks at the files (assembly/reload.py looks twice a second).
QUIET = 2.0


class Listening:
    """A client, and a count of the times that it was told of other tools."""

    def __init__(self) -> None:
        self.client: Client
        self.told = 0
        self._news = anyio.Event()

    async def message(self, message: Any) -> None:
        if isinstance(message, ToolListChangedNotification):
            self.tell()

    def tell(self) -> None:
        self.told += 1
        news, self._news = self._news, anyio.Event()
        news.set()

    async def until_told(self, times: int) -> None:
        while self.told < times:
            await self._news.wait()

    async def names(self) -> list[str]:
        return [tool.name for tool in (await self.client.list_tools()).tools]


@asynccontextmanager
async def listening(folder: Path, era: str) -> AsyncIterator[Listening]:
    """A client that is told of changes in its era's way: in a notification, or in the stream that it listens to."""
    (folder / "skills").mkdir(exist_ok=True)
    arguments = command(folder, TOML)
    server = StdioServerParameters(command=arguments[0], args=arguments[1:], cwd=folder, env={"PYTHONPATH": SOURCES})
    listener = Listening()
    with (folder / "serve.log").open("a") as log:
        handler = listener.message if era == "legacy" else None
        async with Client(stdio_client(server, errlog=log), mode=era, message_handler=handler) as client:
            listener.client = client
            if era == "legacy":
                yield listener
                return
            async with client.listen(tools_list_changed=True) as changes, anyio.create_task_group() as tasks:

                async def hear() -> None:
                    async for _ in changes:
                        listener.tell()

                tasks.start_soon(hear)
                yield listener
                tasks.cancel_scope.cancel()


def write(folder: Path, name: str, description: str = "Does it.") -> None:
    (folder / "skills" / f"{name}.toml").write_text(SKILL.format(name=name, description=description))


def log_lines(folder: Path, text: str) -> list[str]:
    return [line for line in (folder / "serve.log").read_text().splitlines() if text in line]


async def logged(folder: Path, text: str) -> bool:
    return await anyio.to_thread.run_sync(lambda: eventually(lambda: bool(log_lines(folder, text))))


@pytest.mark.parametrize("era", ERAS)
async def test_new_changed_and_removed_manifests_are_told_and_in_use(tmp_path: Path, era: str) -> None:
    with anyio.fail_after(PATIENCE):
        async with listening(tmp_path, era) as here:
            assert await here.names() == OWN_TOOLS
            write(tmp_path, "new")
            await here.until_told(1)
            assert await here.names() == [*OWN_TOOLS, "new"]
            assert (await fields(here.client, "new", {"args": ["echo works"]}))["stdout"] == "works\n"
            write(tmp_path, "new", "Does more.")
            await here.until_told(2)
            assert (await here.client.list_tools()).tools[len(OWN_TOOLS)].description.startswith("Does more.")
            (tmp_path / "skills" / "new.toml").unlink()
            await here.until_told(3)
            assert await here.names() == OWN_TOOLS


@pytest.mark.parametrize("era", ERAS)
async def test_a_faulty_change_keeps_the_tools_and_says_so_once_and_its_mending_is_taken(
    tmp_path: Path, era: str
) -> None:
    with anyio.fail_after(PATIENCE):
        (tmp_path / "skills").mkdir()
        write(tmp_path, "good")
        async with listening(tmp_path, era) as here:
            bad = tmp_path / "skills" / "bad.toml"
            bad.write_text(SKILL.format(name="bad", description="x") + 'docker.memroy = "1g"\nruntim = "docker"\n')
            assert await logged(tmp_path, "did you mean 'memory'?")
            assert await logged(tmp_path, "did you mean 'runtime'?")
            await anyio.sleep(QUIET)
            assert len(log_lines(tmp_path, "the tools stay as they were")) == 2
            assert f"{bad}:6: skills.bad.docker.memroy" in log_lines(tmp_path, "memroy")[0]
            assert (here.told, await here.names()) == (0, [*OWN_TOOLS, "good"])
            bad.unlink()
            write(tmp_path, "mended")
            await here.until_told(1)
            assert await here.names() == [*OWN_TOOLS, "good", "mended"]


@pytest.mark.parametrize("era", ERAS)
async def test_a_change_that_no_client_can_see_is_not_told(tmp_path: Path, era: str) -> None:
    with anyio.fail_after(PATIENCE):
        (tmp_path / "skills").mkdir()
        write(tmp_path, "good")
        async with listening(tmp_path, era) as here:
            with (tmp_path / "skills" / "good.toml").open("a") as manifest:
                manifest.write("docker.environment = ['A=1']\n")
            assert await logged(tmp_path, "are in use")
            assert (await fields(here.client, "good", {"args": ["echo $A"]}))["stdout"] == "1\n"
            assert here.told == 0


@pytest.mark.parametrize("era", ERAS)
async def test_a_call_that_runs_ends_well_though_its_tool_is_gone(tmp_path: Path, era: str) -> None:
    results: list[Any] = []
    with anyio.fail_after(PATIENCE):
        (tmp_path / "skills").mkdir()
        write(tmp_path, "short")
        async with listening(tmp_path, era) as here, anyio.create_task_group() as calls:
            gate = tmp_path / "gate"
            line = f"echo begun; touch {gate}.begun; until [ -e {gate} ]; do sleep 0.05; done; exit 3"

            async def call() -> None:
                results.append(await here.client.call_tool("short", {"args": [line]}, meta=ASKED))

            calls.start_soon(call)
            begun = Path(f"{gate}.begun")
            assert await anyio.to_thread.run_sync(lambda: eventually(begun.exists))
            (tmp_path / "skills" / "short.toml").unlink()
            await here.until_told(1)
            gate.touch()
    assert results[0].is_error
    assert fields_of(results[0])["stdout"] == "begun\n"
    assert fields_of(results[0])["exit_code"] == 3


async def test_a_sandbox_whose_profile_changed_is_replaced_at_the_next_call_and_the_answer_says_so(
    tmp_path: Path,
) -> None:
    with anyio.fail_after(PATIENCE):
        (tmp_path / "skills").mkdir()
        write(tmp_path, "good")
        async with listening(tmp_path, "legacy") as here:
            await here.client.call_tool("good", {"args": ["true"]})
            with (tmp_path / "skills" / "good.toml").open("a") as manifest:
                manifest.write("docker.pids = 100\n")
            assert await logged(tmp_path, "are in use")
            again = await fields(here.client, "good", {"args": ["true"]})
            assert "its configuration changed" in again["notes"][0]


async def test_a_file_that_a_link_or_a_rename_replaces_is_a_change_too(tmp_path: Path) -> None:
    with anyio.fail_after(PATIENCE):
        async with listening(tmp_path, "legacy") as here:
            (tmp_path / "other").write_text(SKILL.format(name="linked", description="x"))
            (tmp_path / "skills" / "a.toml").symlink_to(tmp_path / "other")
            await here.until_told(1)
            (tmp_path / "next").write_text(SKILL.format(name="lanked", description="x"))
            os.replace(tmp_path / "next", tmp_path / "other")
            await here.until_told(2)
            assert await here.names() == [*OWN_TOOLS, "lanked"]


def test_the_handshake_says_that_tools_may_change(tmp_path: Path) -> None:
    with raw_client(tmp_path) as client:
        assert client.shake_hands()["capabilities"]["tools"] == {"listChanged": True}


def test_a_client_that_listens_keeps_no_server_alive_and_hears_nothing_after_its_end(tmp_path: Path) -> None:
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    with raw_client(tmp_path) as client:
        client.send("subscriptions/listen", notifications={"toolsListChanged": True}, _meta=meta)
        assert client.hear()["method"] == "notifications/subscriptions/acknowledged"
        client.end_input()
        assert client.exit_code() == 0
        assert client.unheard() == []
