"""A client of another server of the deployment: of its local door, for the person's own commands too, or over HTTP."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import httpx2
from mcp.client.client import Client
from mcp.client.context import ClientRequestContext
from mcp.client.session import ClientSession
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError
from mcp_types import (
    BlobResourceContents,
    CallToolResult,
    ElicitRequestParams,
    ElicitResult,
    LoggingMessageNotificationParams,
    RequestParamsMeta,
    TextContent,
)

from taskcell.deployment.base import Peer
from taskcell.errors import TaskcellError
from taskcell.mcp.answer import STRUCTURED
from taskcell.mcp.neighbours import HERE
from taskcell.mcp.tools import TO_END
from taskcell.socket_name import short_path

#: Host and path of every server's application; the socket says which server.
_ADDRESS = "http://localhost/mcp"
#: Seconds to connect to another pod, which is there or is not.
PEER_CONNECT_TIMEOUT = 3.0
#: Asks for fields beside the text of an answer, for the answer when the command has ended, and this server alone.
_META = cast(RequestParamsMeta, {STRUCTURED: True, TO_END: True, HERE: True})


class LocalClient:
    """Calls tools of one server."""

    def __init__(self, client: Client) -> None:
        self._client = client

    @property
    def session(self) -> ClientSession:
        """What results pass through as they are."""
        return self._client.session

    async def call(self, tool: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Call a tool; return its fields. Raises TaskcellError with the server's sentence if it did not run."""
        try:
            result = await self._client.call_tool(tool, dict(arguments), meta=_META)
        except MCPError as error:
            raise TaskcellError(str(error)) from None
        assert isinstance(result, CallToolResult)
        fields: dict[str, Any] = result.structured_content or {}
        if not fields or "error" in fields:
            raise TaskcellError("".join(block.text for block in result.content if isinstance(block, TextContent)))
        return fields

    async def read(self, uri: str) -> list[tuple[Mapping[str, Any], bytes]]:
        """Read a resource: fields and bytes of each part. Raises TaskcellError."""
        try:
            contents = (await self._client.read_resource(uri)).contents
        except MCPError as error:
            raise TaskcellError(str(error)) from None
        return [(part.meta or {}, _bytes_of(part)) for part in contents]


def _bytes_of(part: Any) -> bytes:
    return base64.b64decode(part.blob) if isinstance(part, BlobResourceContents) else part.text.encode()


async def _refuse(context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult:
    return ElicitResult(action="cancel")


@asynccontextmanager
async def local_client(
    door: Path, *, asks: bool = False, hear: Callable[[LoggingMessageNotificationParams], None] | None = None
) -> AsyncIterator[LocalClient]:
    """Connect to the server behind a socket. Raises OSError, httpx2.HTTPError. Arguments as in `connected`."""
    with short_path(door) as name:
        # No TLS: reading the certificates of this machine would take longer than a call.
        transport = httpx2.AsyncHTTPTransport(uds=name, verify=False, trust_env=False)
        async with (
            httpx2.AsyncClient(transport=transport, timeout=None, trust_env=False) as http,
            connected(http, _ADDRESS, asks=asks, hear=hear) as client,
        ):
            yield client


@asynccontextmanager
async def peer_client(
    peer: Peer,
    token: str,
    *,
    asks: bool = False,
    hear: Callable[[LoggingMessageNotificationParams], None] | None = None,
) -> AsyncIterator[LocalClient]:
    """Connect to another server of the deployment. Raises OSError, httpx2.HTTPError. Arguments as in `connected`.

    Arguments:
        token: says whose calls these are.
    """
    async with (
        peer.http(token, None, connect=PEER_CONNECT_TIMEOUT) as http,
        connected(http, f"{peer.url}/mcp", asks=asks, hear=hear) as client,
    ):
        yield client


@asynccontextmanager
async def connected(
    http: httpx2.AsyncClient,
    address: str,
    *,
    asks: bool,
    hear: Callable[[LoggingMessageNotificationParams], None] | None,
) -> AsyncIterator[LocalClient]:
    """A client over a connection. A call that is cancelled is killed by the server, with everything that it has begun.

    Arguments:
        asks: declare that the person can be asked. Whoever calls then takes the questions from the session's results.
        hear: called with what the server logs for calls that ask for it.
    """

    async def logged(params: LoggingMessageNotificationParams) -> None:
        if hear is not None:
            hear(params)

    async with Client(
        streamable_http_client(address, http_client=http),
        mode="2026-07-28",
        elicitation_callback=_refuse if asks else None,
        logging_callback=logged,
    ) as client:
        yield LocalClient(client)
