"""What the client speaks to a server: requests, answers, errors and frames. docs/programs.md describes them."""

from __future__ import annotations

import json
import os
import posixpath
import struct
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx2

from taskcell.client.failures import (
    ArgumentError,
    CapacityError,
    CellError,
    ForbiddenError,
    LostError,
    NotFoundError,
    error_of,
)
from taskcell.model import WORKSPACE
from taskcell.socket_name import short_path

PathLike = os.PathLike[str] | os.PathLike[bytes]
_FRAME = struct.Struct(">BxxxI")
#: Seconds to connect. What a server answers may take as long as its engine does, and a command as long as it runs.
SERVER_CONNECT_TIMEOUT = 30.0
#: HTTP's status for a task that another server of the deployment has.
_ELSEWHERE = 421
#: HTTP's status for a connection that is something else from now on.
_UPGRADED = 101
_BARE = {401: ForbiddenError, 403: ForbiddenError, 404: NotFoundError, 429: CapacityError, 503: LostError}


class ServerClient:
    """Connections to one server, and to others of its deployment for tasks that those have.

    Arguments as those of `connect`.
    """

    def __init__(
        self,
        *,
        url: str | None = None,
        token: str | None = None,
        door: Path | str | None = None,
        linger: float = 0.0,
    ) -> None:
        self._url, self._token = url, token
        self.linger = linger if url is not None else 0.0
        self._first = None if door is None else str(door)
        self._open = AsyncExitStack()
        self._is_closed = False
        self._clients: dict[str | None, httpx2.AsyncClient] = {}
        #: The doors of tasks that the first server does not have.
        self._doors: dict[str, str] = {}

    @property
    def address(self) -> str:
        """Which server it is, without secrets."""
        return self._first or (self._url or "").rpartition("@")[2]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_closed = True
        await self._open.aclose()

    async def _client(self, task: str | None) -> httpx2.AsyncClient:
        if self._is_closed:
            raise LostError("The connection was closed; connect again.")
        door = self._first if task is None else self._doors.get(task, self._first)
        found = self._clients.get(door)
        if found is None:
            found = self._clients[door] = await self._open.enter_async_context(self._connection(door))
        return found

    def _connection(self, door: str | None) -> httpx2.AsyncClient:
        timeout = httpx2.Timeout(None, connect=SERVER_CONNECT_TIMEOUT)
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=16)
        if door is None:
            assert self._url is not None
            headers = {} if self._token is None else {"authorization": f"Bearer {self._token}"}
            base = self._url.removesuffix("/").removesuffix("/mcp")
            return httpx2.AsyncClient(base_url=base, headers=headers, timeout=timeout, limits=limits)
        name = self._open.enter_context(short_path(Path(door)))
        # No TLS: reading the certificates of this machine would take longer than a call.
        transport = httpx2.AsyncHTTPTransport(uds=name, verify=False, trust_env=False, limits=limits)
        return httpx2.AsyncClient(transport=transport, base_url="http://localhost", timeout=timeout, trust_env=False)

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        path: str,
        *,
        task: str | None = None,
        content: bytes | AsyncIterable[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> AsyncIterator[httpx2.Response]:
        """Send a request, and yield its answer before its body is read. Raises a CellError.

        Arguments:
            task: whose server is asked. A request whose content is not `bytes` is not sent to a second server.
        """
        for _ in range(2):
            client = await self._client(task)
            try:
                async with client.stream(method, path, content=content, headers=headers) as answer:
                    is_answered = answer.is_success or answer.status_code == _UPGRADED
                    fault = None if is_answered else await _failure(answer)
                    door = fault.fields.get("door") if fault is not None and answer.status_code == _ELSEWHERE else None
                    if door is None or task is None or self._doors.get(task) == door or not _repeats(content):
                        if fault is not None:
                            raise fault
                        yield answer
                        return
                    self._doors[task] = str(door)
            except (httpx2.TransportError, OSError) as error:
                if task is not None:
                    self._doors.pop(task, None)
                raise LostError(
                    f"The server went away, or does not answer ({error or type(error).__name__})."
                ) from error

    async def json(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        task: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """Send JSON, or bytes as they are, and return the answer's. Raises a CellError."""
        content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        async with self.stream(method, path, task=task, content=content, headers=headers) as answer:
            return json.loads(await answer.aread())

    async def json_bytes(self, path: str, data: bytes, *, task: str) -> None:
        """Send bytes. Raises a CellError."""
        async with self.stream("POST", path, task=task, content=data) as answer:
            await answer.aread()

    async def tool(self, name: str, task: str | None = None, /, **arguments: Any) -> Any:
        """Call a tool, and return its fields. Raises a CellError."""
        sent = {key: value for key, value in arguments.items() if value is not None}
        if task is not None:
            sent["task_id"] = task
        return (await self.json("POST", f"/tools/{name}", sent, task=task))["result"]


def _repeats(content: object) -> bool:
    return content is None or isinstance(content, bytes)


async def _failure(answer: httpx2.Response) -> CellError:
    data = await answer.aread()
    try:
        found = json.loads(data)["error"]
        if isinstance(found, dict) and isinstance(found.get("code"), str):
            return error_of(found)
        message = str(found["message"])
    except (ValueError, KeyError, TypeError):
        message = data[:200].decode("utf-8", "replace").strip() or f"The server answered {answer.status_code}."
    return _BARE.get(answer.status_code, CellError)(message)


async def frames(answer: httpx2.Response) -> AsyncGenerator[tuple[int, bytes], None]:
    """The frames of a streamed answer. Raises LostError when it breaks off."""
    held = bytearray()
    try:
        async for data in answer.aiter_raw():
            held += data
            at = 0
            while len(held) - at >= _FRAME.size:
                kind, size = _FRAME.unpack_from(held, at)
                if len(held) - at - _FRAME.size < size:
                    break
                begin = at + _FRAME.size
                at = begin + size
                yield kind, bytes(held[begin:at])
            del held[:at]
    except (httpx2.TransportError, httpx2.StreamError, OSError) as error:
        raise LostError(
            f"The server went away; what ran was ended or goes on without this client ({error})."
        ) from error


def task_path(task: str, *parts: str) -> str:
    return "/".join(["/tasks", *(_quoted(part) for part in (task, *parts))])


def port_path(task: str, port: int) -> str:
    return f"/ports/{_quoted(task)}/{port}"


def file_path(task: str, path: str | bytes | PathLike) -> str:
    """Return the address of a file: a path from the workspace, or an absolute one below `/workspace`.

    Raises ArgumentError: it is neither. In an address, `..` would lead to another task, or to another route.
    """
    whole = posixpath.normpath(posixpath.join(WORKSPACE, os.fsdecode(path)))
    if whole != WORKSPACE and not whole.startswith(f"{WORKSPACE}/"):
        raise ArgumentError(f"{os.fsdecode(path)!r} is not below {WORKSPACE}; a command reads and writes other files.")
    inner = whole.removeprefix(WORKSPACE).lstrip("/")
    return f"/files/{_quoted(task)}/{_quoted(inner, safe='/')}"


def _quoted(text: str, safe: str = "") -> str:
    """Return a part of an address. Raises ArgumentError."""
    try:
        quoted = quote(text, safe=safe, errors="surrogateescape")
    except UnicodeEncodeError:
        raise ArgumentError(f"{text!r} holds half of a character; send whole ones.") from None
    # A part of dots alone would be taken out of the address on its way, with the part before it.
    return quoted.replace(".", "%2E") if quoted in (".", "..") else quoted
