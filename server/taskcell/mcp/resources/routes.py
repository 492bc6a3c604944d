"""`resources/read` and its lists: addresses `taskcell://tasks/{task_id}/…`, with one route for each kind."""

from __future__ import annotations

import builtins
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote

import anyio
import structlog
from mcp.server.context import ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    Annotations,
    BlobResourceContents,
    ListResourcesResult,
    ListResourceTemplatesResult,
    PaginatedRequestParams,
    ReadResourceRequestParams,
    ReadResourceResult,
    Resource,
    ResourceTemplate,
    TextResourceContents,
)
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from taskcell.caller import Caller, Scope
from taskcell.errors import BadArgument, TaskcellError, UnknownResource
from taskcell.gateway.gateway import Gateway
from taskcell.mcp.neighbours import Neighbours
from taskcell.mcp.principal import caller_of, missing
from taskcell.model import TaskKey
from taskcell.pool.slot import opened
from taskcell.resource_uris import PREFIX
from taskcell.sandbox.sandbox import Sandbox
from taskcell.schema.arguments import check_visible
from taskcell.schema.properties import MAX_TASK_ID

log = structlog.get_logger(__name__)

Context = ServerRequestContext[Any, Any]
Contents = list[TextResourceContents | BlobResourceContents]
#: Called when a resource has changed; and when it was looked at first, so that every later change is noticed.
OnChange = Callable[[], Awaitable[None]]
OnBegun = Callable[[], None]

#: Resources on one page of `resources/list`.
LISTED_PAGE = 100
#: Seconds for `resources/list` to look into sandboxes; what is found by then is listed.
LISTING_TIMEOUT = 5.0

#: More resources than are ever listed.
_CURSOR_DIGITS = 9
#: The handshake's era has its own code for a missing resource; later eras treat it as an invalid parameter.
_NOT_FOUND = -32002


def as_text(data: bytes) -> str | None:
    """Return bytes as text; None if they are not UTF-8, or hold NUL, which has ended sessions of clients for good."""
    try:
        return None if b"\0" in data else data.decode()
    except UnicodeDecodeError:
        return None


def last_modified(seconds: float) -> Annotations | None:
    """Return the annotation that says when a resource has changed. A sandbox may say any number of seconds."""
    try:
        return Annotations(last_modified=datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"))
    except (ValueError, OverflowError, OSError):
        return None


@dataclass(frozen=True, slots=True)
class Route:
    """One kind of resource of a task.

    Arguments:
        kind: the word after the task's name in the address, such as `processes`.
        scopes: of these a caller needs one.
        templates: its part of `resources/templates/list`.
        read: called with the task, the rest of the address after `kind/` (still percent-encoded, with its query) and
            the whole address. Raises UnknownResource if there is no such resource, and other TaskcellErrors.
        list: the resources of a task that has these sandboxes, the newest first. It starts no sandbox.
        follow: called with the task, the rest of the address, what to call at each change, and what to call once it
            has begun; it returns when nothing changes any more. Raises UnknownResource if there can be none such.
        variable: the variable of its templates that `complete` completes.
        complete: the values that a variable may have, for a task that has these sandboxes.
    """

    kind: str
    scopes: frozenset[Scope]
    templates: tuple[ResourceTemplate, ...]
    read: Callable[[TaskKey, str, str], Awaitable[Contents]]
    list: Callable[[TaskKey, Sequence[Sandbox]], Awaitable[Sequence[Resource]]]
    follow: Callable[[TaskKey, str, OnChange, OnBegun], Awaitable[None]]
    variable: str
    complete: Callable[[TaskKey, Sequence[Sandbox], str], Awaitable[Sequence[str]]]


class Resources:
    """The handlers of a server's resource methods. A caller can only name its own tasks.

    Arguments:
        neighbours: read what other servers of the deployment have.
    """

    def __init__(self, gateway: Gateway, routes: Iterable[Route], neighbours: Neighbours) -> None:
        self._gateway = gateway
        self._neighbours = neighbours
        self.routes = {route.kind: route for route in routes}

    async def list(self, context: Context, params: PaginatedRequestParams | None) -> ListResourcesResult:
        """Handle `resources/list`: what the caller's open sandboxes have. No sandbox is started for it.

        The newest task comes first; of a task the processes, then the files, each the newest first.
        """
        cursor = params.cursor if params is not None and params.cursor is not None else "0"
        if not cursor.isascii() or not cursor.isdigit() or len(cursor) > _CURSOR_DIGITS:
            raise MCPError(code=INVALID_PARAMS, message="The cursor is not one of an earlier page; begin without one.")
        start, found = int(cursor), await self._listed(caller_of(context))
        more = str(start + LISTED_PAGE) if start + LISTED_PAGE < len(found) else None
        return ListResourcesResult(resources=found[start : start + LISTED_PAGE], next_cursor=more)

    async def _listed(self, caller: Caller) -> builtins.list[Resource]:
        found: builtins.list[Resource] = []
        with anyio.move_on_after(LISTING_TIMEOUT):
            for task, sandboxes in opened(self._gateway.pool.slots, caller.principal).items():
                for route in self.readable(caller):
                    found += await route.list(task, sandboxes)
        return found

    async def templates(self, context: Context, params: PaginatedRequestParams | None) -> ListResourceTemplatesResult:
        """Handle `resources/templates/list`: all templates on one page."""
        templates = [template for route in self.routes.values() for template in route.templates]
        return ListResourceTemplatesResult(resource_templates=templates)

    async def read(self, context: Context, params: ReadResourceRequestParams) -> ReadResourceResult:
        """Handle `resources/read`. A resource that cannot be read is a protocol error with a sentence."""
        caller = caller_of(context)
        try:
            route, task, rest = self.find(params.uri, caller)
            elsewhere = await self._neighbours.read(context, task, params.uri)
            return elsewhere or ReadResourceResult(contents=await route.read(task, rest, params.uri))
        except MCPError:
            raise  # another server's
        except UnknownResource as error:
            modern = context.protocol_version in MODERN_PROTOCOL_VERSIONS
            code = INVALID_PARAMS if modern else _NOT_FOUND
            raise MCPError(code=code, message=str(error), data={"uri": params.uri}) from None
        except BadArgument as error:
            raise MCPError(code=INVALID_PARAMS, message=str(error), data={"uri": params.uri}) from None
        except TaskcellError as error:
            raise MCPError(code=INTERNAL_ERROR, message=str(error)) from None
        except Exception:
            log.exception("A resource could not be read.")
            raise MCPError(code=INTERNAL_ERROR, message="Internal error; the server's log tells why.") from None

    def readable(self, caller: Caller) -> builtins.list[Route]:
        """The kinds of resources that the caller's scopes allow."""
        return [route for route in self.routes.values() if caller.may(route.scopes)]

    def find(self, uri: str, caller: Caller) -> tuple[Route, TaskKey, str]:
        """Return the route of an address, its task and the rest of it.

        Raises UnknownResource; BadArgument also where the caller's scopes do not allow it.
        """
        name, kind, rest = [*uri.removeprefix(PREFIX).split("/", 2), "", ""][:3]
        route = self.routes.get(kind)
        task = unquote(name, errors="surrogateescape")
        if not uri.startswith(PREFIX) or route is None or not 0 < len(task) <= MAX_TASK_ID:
            raise UnknownResource("There is no such resource; `resources/templates/list` lists what exists.")
        check_visible("task_id", task)
        if not caller.may(route.scopes):
            raise BadArgument(missing(route.scopes))
        return route, TaskKey(caller.principal, task), rest
