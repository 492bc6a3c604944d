"""`resources/read` and the lists around it: `taskcell://tasks/{task_id}/…`, each kind by a route of its own."""

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

from taskcell.errors import BadArgument, TaskcellError, UnknownResource
from taskcell.model import TaskKey
from taskcell.resource_uris import PREFIX
from taskcell.schema.arguments import check_visible
from taskcell.schema.properties import MAX_TASK_ID

log = structlog.get_logger(__name__)

Context = ServerRequestContext[Any, Any]
Contents = list[TextResourceContents | BlobResourceContents]

#: The handshake's era has a code of its own for a resource that is not there; later ones count it as a bad parameter.
_NOT_FOUND = -32002


@dataclass(frozen=True, slots=True)
class Route:
    """One kind of resource of a task.

    Arguments:
        kind: the word after the task's name in the address, such as `processes`.
        templates: what `resources/templates/list` says of it.
        read: takes the task, the rest of the address after `kind/` as it came (percent-encoded, with its query), and
            the whole address. Raises UnknownResource where there is no such resource, and other TaskcellErrors.
    """

    kind: str
    templates: tuple[ResourceTemplate, ...]
    read: Callable[[TaskKey, str, str], Awaitable[Contents]]


class Resources:
    """The handlers of a server's resource methods.

    Arguments:
        principal: whose tasks are read; nobody else's can be named.
    """

    def __init__(self, principal: str, routes: Iterable[Route]) -> None:
        self._principal = principal
        self._routes = {route.kind: route for route in routes}

    async def list(self, context: Context, params: PaginatedRequestParams | None) -> ListResourcesResult:
        """An empty list: processes and files come and go with each call, and the answers name them."""
        return ListResourcesResult(resources=[])

    async def templates(self, context: Context, params: PaginatedRequestParams | None) -> ListResourceTemplatesResult:
        """All templates on one page."""
        templates = [template for route in self._routes.values() for template in route.templates]
        return ListResourceTemplatesResult(resource_templates=templates)

    async def read(self, context: Context, params: ReadResourceRequestParams) -> ReadResourceResult:
        """Read one resource; a failure is a protocol error with a sentence."""
        try:
            route, task, rest = self._find(params.uri)
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
            raise MCPError(code=INTERNAL_ERROR, message="Internal error; see the server's log.") from None

    def _find(self, uri: str) -> tuple[Route, TaskKey, str]:
        name, kind, rest = [*uri.removeprefix(PREFIX).split("/", 2), "", ""][:3]
        route = self._routes.get(kind)
        task = unquote(name, errors="surrogateescape")
        if not uri.startswith(PREFIX) or route is None or not 0 < len(task) <= MAX_TASK_ID:
            raise UnknownResource("There is no such resource; `resources/templates/list` says what there is.")
        check_visible("task_id", task)
        return route, TaskKey(self._principal, task), rest
