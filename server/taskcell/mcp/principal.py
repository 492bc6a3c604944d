"""Who calls. This is the only place that knows how a door tells; handlers ask here."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from mcp.server.context import ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_REQUEST

from taskcell.caller import LOCAL_CALLER, Caller, Scope, format_scopes

#: A door over HTTP stores whom it has authenticated in `request.state` under this name.
STATE = "caller"


def sign_in(scope: MutableMapping[str, Any], caller: Caller) -> None:
    """Store in a request over HTTP whose it is. The SDK then lets nobody else use the sessions that it opens."""
    scope["state"] = {**scope.get("state", {}), STATE: caller}
    # Of the principal, not of the token: a client that gets itself a new token keeps its session.
    scope["user"] = AuthenticatedUser(AccessToken(token="", client_id=caller.principal, scopes=[]))


def caller_of(context: ServerRequestContext[Any, Any]) -> Caller:
    """Return who sends a request, and what the request may do.

    A request without an HTTP request came through a pipe, which only the program that started the server has: `local`.
    Every other request belongs to the caller that its door has authenticated. Raises MCPError if there is none.
    """
    if context.request is None:
        return LOCAL_CALLER
    caller = getattr(context.request.state, STATE, None)
    if not isinstance(caller, Caller) or not caller.principal:
        raise MCPError(code=INVALID_REQUEST, message="Nobody is signed in; send credentials with each request.")
    return caller


def principal_of(context: ServerRequestContext[Any, Any]) -> str:
    """Return the principal of a request, whose tasks it may use. Raises MCPError if there is none."""
    return caller_of(context).principal


def require(context: ServerRequestContext[Any, Any], any_of: frozenset[Scope]) -> Caller:
    """Return the caller of a request. Raises MCPError unless it has one of these scopes."""
    caller = caller_of(context)
    if not caller.may(any_of):
        raise MCPError(code=INVALID_REQUEST, message=missing(any_of))
    return caller


def missing(any_of: frozenset[Scope]) -> str:
    """The sentence for a caller that has none of these scopes."""
    names = " or ".join(f"'{name}'" for name in format_scopes(any_of).split())
    return f"This needs a token with the scope {names}; the one that was sent does not have it."
