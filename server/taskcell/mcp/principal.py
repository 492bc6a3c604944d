"""Who calls. This is the only place that knows how a door tells; handlers ask here."""

from __future__ import annotations

from typing import Any

from mcp.server.context import ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_REQUEST

from taskcell.model import LOCAL_PRINCIPAL

#: A door over HTTP stores whom it has authenticated in `request.state` under this name.
STATE = "principal"


def principal_of(context: ServerRequestContext[Any, Any]) -> str:
    """Return the principal of a request, whose tasks it may use.

    A request without an HTTP request came through a pipe, which only the program that started the server has: `local`.
    Every other request belongs to the principal that its door has authenticated. Raises MCPError if there is none.
    """
    if context.request is None:
        return LOCAL_PRINCIPAL
    principal = getattr(context.request.state, STATE, None)
    if not isinstance(principal, str) or not principal:
        raise MCPError(code=INVALID_REQUEST, message="Nobody is signed in; send credentials with each request.")
    return principal
