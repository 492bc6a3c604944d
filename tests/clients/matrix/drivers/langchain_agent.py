"""LangChain's agent with langchain-mcp-adapters: `get_tools()` starts a server for each call."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, ClassVar

from langchain.agents import create_agent
from langchain_core.tools import BaseTool
from langchain_mcp_adapters.callbacks import Callbacks
from langchain_mcp_adapters.client import MultiServerMCPClient
from langchain_mcp_adapters.resources import load_mcp_resources
from langchain_mcp_adapters.tools import load_mcp_tools
from langchain_messages import FakeModel, seen_of
from mcp import ClientSession
from probe import Call, Seen, Server, run_checks

IN_A_SESSION = sys.argv[1:] == ["session"]


class Client:
    gaps: ClassVar[dict[str, str]] = (
        {"cancel": "the SDK 1.x below it sends no cancel"}
        if IN_A_SESSION
        else {"resources": "its server has just started, and no task is open in it"}
    )
    default_timeout = None
    #: Without a session the server ends with its only call.
    cancels_what_it_gives_up = not IN_A_SESSION

    def __init__(self, session: ClientSession | None, tools: list[BaseTool], said: list[str]) -> None:
        self._session, self._tools, self._said = session, tools, said

    @classmethod
    @asynccontextmanager
    async def connect(cls, server: Server, timeout: float | None) -> AsyncIterator[Client]:
        options = {"read_timeout_seconds": timedelta(seconds=timeout)} if timeout else None
        connection: dict[str, Any] = {
            "transport": "stdio", "command": server.command, "args": server.args, "env": server.env,
            "session_kwargs": options,
        }  # fmt: skip
        said: list[str] = []

        async def progress(done: float, total: float | None, message: str | None, context: Any) -> None:
            said.append(message or "")

        callbacks = Callbacks(on_progress=progress)
        client = MultiServerMCPClient({"taskcell": connection}, callbacks=callbacks)
        if IN_A_SESSION:
            async with client.session("taskcell") as session:
                tools = await load_mcp_tools(session, callbacks=callbacks, server_name="taskcell")
                yield cls(session, tools, said)
        else:
            yield cls(None, await client.get_tools(), said)

    async def tools(self) -> list[str]:
        return [tool.name for tool in self._tools]

    async def run(self, *calls: Call) -> list[Seen]:
        agent = create_agent(FakeModel(calls=list(calls)), self._tools)
        done = await agent.ainvoke({"messages": [("user", "Do it.")]}, {"recursion_limit": 50})
        return seen_of(done["messages"])

    async def follow(self, call: Call) -> list[str]:
        self._said.clear()
        await self.run(call)
        return self._said

    async def resources(self) -> list[str]:
        assert self._session is not None
        return [str(one.uri) for one in (await self._session.list_resources()).resources]

    async def read(self, uri: str) -> str:
        [blob] = await load_mcp_resources(self._session, uris=uri)
        return blob.as_string()


run_checks(Client)
