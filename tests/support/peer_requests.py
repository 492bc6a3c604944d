"""Requests of MCP as bytes, each sent to whichever server a test wants: as a Service does without affinity."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2

from http_serving import PATIENCE
from peers import Peers, PeerServer

ACCEPT = "application/json, text/event-stream"
INITIALIZE = {
    "protocolVersion": "2025-11-25",
    "capabilities": {},
    "clientInfo": {"name": "tests", "version": "1"},
}
META = {
    "io.modelcontextprotocol/clientInfo": {"name": "tests", "version": "1"},
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {"extensions": {"io.modelcontextprotocol/tasks": {}}},
}


class Raw:
    """A client that sends each request wherever a test wants: as a Service does without affinity."""

    def __init__(self, http: httpx2.AsyncClient) -> None:
        self.http = http
        self.session = ""
        self._number = 0

    async def send(
        self, server: PeerServer, method: str, params: dict[str, Any], *, wants: int = 200
    ) -> httpx2.Response:
        self._number += 1
        body = {"jsonrpc": "2.0", "id": self._number, "method": method, "params": params}
        headers = {"accept": ACCEPT} | ({"mcp-session-id": self.session} if self.session else {})
        answer = await self.http.post(f"{server.url}/mcp", json=body, headers=headers)
        assert answer.status_code == wants, answer.text
        return answer

    async def ask(self, server: PeerServer, method: str, **params: Any) -> dict[str, Any]:
        """A request of the later era, which has no session."""
        named = params.get("name") or params.get("taskId")
        headers = {"accept": ACCEPT, "mcp-protocol-version": "2026-07-28", "mcp-method": method}
        headers |= {"mcp-name": named} if named else {}
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {**params, "_meta": META}}
        answer = await self.http.post(f"{server.url}/mcp", json=body, headers=headers)
        return dict(answer.json())

    async def begin(self, server: PeerServer) -> None:
        self.session = (await self.send(server, "initialize", INITIALIZE)).headers["mcp-session-id"]
        headers = {"accept": ACCEPT, "mcp-session-id": self.session}
        body = {"jsonrpc": "2.0", "method": "notifications/initialized"}
        assert (await self.http.post(f"{server.url}/mcp", json=body, headers=headers)).status_code == 202

    async def end(self, server: PeerServer) -> int:
        headers = {"accept": ACCEPT, "mcp-session-id": self.session}
        return (await self.http.delete(f"{server.url}/mcp", headers=headers)).status_code


@asynccontextmanager
async def raw(fleet: Peers, name: str = "ann") -> AsyncIterator[Raw]:
    headers = {"authorization": f"Bearer {fleet.tokens[name]}"}
    async with httpx2.AsyncClient(headers=headers, timeout=PATIENCE) as http:
        yield Raw(http)
