"""`resources/read` and its lists: addresses `taskcell://tasks/{task_id}/…`, with one route for each kind."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import structlog
from mcp.server.context import ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    BlobResourceContents,
    ListResourcesResult,
    ListResourceTemplatesResult,
    PaginatedRequestParams,
    ReadResourceRequestParams,
    ReadResourceResult,
    ResourceTemplate,
    TextResourceContents,
)
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from taskcell.caller import Scope
from taskcell.errors import BadArgument, TaskcellError, UnknownResource
from taskcell.mcp.principal import caller_of, missing
from taskcell.model import TaskKey
from taskcell.resource_uris import PREFIX
from taskcell.schema.arguments import check_visible
from taskcell.schema.properties import MAX_TASK_ID

log = structlog.get_logger(__name__)

Context = ServerRequestContext[Any, Any]
Contents = list[TextResourceContents | BlobResourceContents]

#: The handshake's era has its own code for a missing resource; later eras treat it as an invalid parameter.
_NOT_FOUND = -32002


def as_text(data: bytes) -> str | None:
    """Return bytes as text; None if they are not UTF-8, or hold NUL, which has ended sessions of clients for good."""
    try:
        return None if b"\0" in data else data.decode()
    except UnicodeDecodeError:
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
    """

    kind: str
    scopes: frozenset[Scope]
    templates: tuple[ResourceTemplate, ...]
    read: Callable[[TaskKey, str, str], Awaitable[Contents]]


class Resources:
    """The handlers of a server's resource methods. A caller can only name its own tasks."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._routes = {route.kind: route for route in routes}

    async def list(self, context: Context, params: PaginatedRequestParams | None) -> ListResourcesResult:
        """Handle `resources/list`: none, since processes and files come and go, and answers of tools name them."""
        return ListResourcesResult(resources=[])

    async def templates(self, context: Context, params: PaginatedRequestParams | None) -> ListResourceTemplatesResult:
        """Handle `resources/templates/list`: all templates on one page."""
        templates = [template for route in self._routes.values() for template in route.templates]
        return ListResourceTemplatesResult(resource_templates=templates)

    async def read(self, context: Context, params: ReadResourceRequestParams) -> ReadResourceResult:
        """Handle `resources/read`. A resource that cannot be read is a protocol error with a sentence."""
        caller = caller_of(context)
        try:
            route, task, rest = self._find(params.uri, caller.principal)
            if not caller.may(route.scopes):
                raise BadArgument(missing(route.scopes))
            return ReadResourceResult(contents=await route.read(task, rest, params.uri))
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

    def _find(self, uri: str, principal: str) -> tuple[Route, TaskKey, str]:
        name, kind, rest = [*uri.removeprefix(PREFIX).split("/", 2), "", ""][:3]
        route = self._routes.get(kind)
        task = unquote(name, errors="surrogateescape")
        if not uri.startswith(PREFIX) or route is None or not 0 < len(task) <= MAX_TASK_ID:
            raise UnknownResource("There is no such resource; `resources/templates/list` lists what exists.")
        check_visible("task_id", task)
        return route, TaskKey(principal, task), rest
