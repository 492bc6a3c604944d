"""Who calls: the one place that knows it, so that handlers need not ask how a request came in."""

from __future__ import annotations

from typing import Any

from mcp.server.context import ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_REQUEST

from taskcell.model import LOCAL_PRINCIPAL

#: Where a door over HTTP writes who has been authenticated: `request.state.principal`.
STATE = "principal"


def principal_of(context: ServerRequestContext[Any, Any]) -> str:
    """Whose tasks a request is about: `local` for what came in through a pipe, which only its server's starter has.

    A request that came over HTTP belongs to whom its door has authenticated, and to nobody else. Raises MCPError where
    the door has authenticated nobody.
    """
    if context.request is None:
        return LOCAL_PRINCIPAL
    principal = getattr(context.request.state, STATE, None)
    if not isinstance(principal, str) or not principal:
        raise MCPError(code=INVALID_REQUEST, message="Nobody is signed in; send the credentials with each request.")
    return principal
