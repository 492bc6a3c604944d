"""Signs each request in before anything else sees it, and says to clients how they get a token (RFC 6750, RFC 9728)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar
from urllib.parse import urlsplit

import anyio
import structlog
from starlette.datastructures import URL, Headers
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from taskcell.auth.authentication import Authentication, SignedIn, Unauthenticated
from taskcell.auth.jwks import KeysUnavailable
from taskcell.auth.tokens import TokensUnreadable
from taskcell.caller import USUAL_SCOPES, Caller, format_scopes
from taskcell.caller import Scope as TokenScope
from taskcell.config.http_table import HttpSettings
from taskcell.http.refuse import refusal
from taskcell.http.requests import SentAnswer
from taskcell.mcp.principal import STATE, missing, sign_in

log = structlog.get_logger(__name__)

MCP = "/mcp"
METADATA = "/.well-known/oauth-protected-resource"
#: Seconds between two looks whether the token of a request that is still served counts: within a second it must not.
REVOCATION_INTERVAL = 0.5
#: Seconds after which a client may try again when the keys or tokens cannot be read now.
RETRY_AFTER = 10


class SignIn:
    """Passes on requests of callers that are signed in, and ends those whose token is revoked meanwhile."""

    def __init__(self, app: ASGIApp, authentication: Authentication, settings: HttpSettings) -> None:
        self._app = app
        self._authentication = authentication
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        sent = Headers(scope=scope).getlist("authorization")
        if len(sent) > 1:
            await refusal(400, "Send one header Authorization.")(scope, receive, send)
            return
        try:
            signed_in = await self._authentication.sign_in(sent[0] if sent else None)
        except Unauthenticated as error:
            await self.challenge(scope, error.reason)(scope, receive, send)
        except (KeysUnavailable, TokensUnreadable) as error:
            log.warning("Nobody can sign in.", reason=str(error))
            headers = {"retry-after": str(RETRY_AFTER)}
            sentence = "The server cannot check tokens now; try again soon, and tell its operator if that lasts."
            await refusal(503, sentence, headers)(scope, receive, send)
        else:
            sign_in(scope, signed_in.caller)
            await self._serve(signed_in, scope, receive, send)

    async def _serve(self, signed_in: SignedIn, scope: Scope, receive: Receive, send: Send) -> None:
        still_holds = signed_in.still_holds
        if still_holds is None:
            await self._app(scope, receive, send)
            return
        answer, is_revoked = SentAnswer(send), False
        async with anyio.create_task_group() as serving:
            served = serving.cancel_scope

            async def look() -> None:
                while True:
                    await anyio.sleep(REVOCATION_INTERVAL)
                    if not still_holds():
                        break
                nonlocal is_revoked
                is_revoked = True
                log.info("A token does not count any more; its request ends.", principal=signed_in.caller.principal)
                served.cancel()

            serving.start_soon(look)
            await self._app(scope, receive, answer.send)
            served.cancel()
        if is_revoked:  # an answer that breaks off by itself is left without its end, so that the client notices
            await answer.finish()

    def challenge(self, scope: Scope, reason: str) -> Response:
        """The answer to a request of which nobody is signed in: 401, and how to get a token."""
        fields = {"realm": "taskcell"}
        if reason:
            fields |= {"error": "invalid_token", "error_description": reason}
        sentence = reason or "Nobody is signed in: send a token in the header Authorization."
        return refusal(401, sentence, {"www-authenticate": self._bearer(scope, fields, USUAL_SCOPES)})

    def insufficient(self, scope: Scope, sentence: str, scopes: frozenset[TokenScope]) -> Response:
        """The answer to a request whose token does not allow it: 403, and which scopes would."""
        fields = {"realm": "taskcell", "error": "insufficient_scope", "error_description": sentence}
        return refusal(403, sentence, {"www-authenticate": self._bearer(scope, fields, scopes)})

    def _bearer(self, scope: Scope, fields: dict[str, str], scopes: frozenset[TokenScope]) -> str:
        shown = {**fields, "scope": format_scopes(scopes)}
        if self._authentication.has_jwt:
            shown["resource_metadata"] = self._address(scope, METADATA + MCP)
        return "Bearer " + ", ".join(f'{name}="{value}"' for name, value in shown.items())

    def _address(self, scope: Scope, path: str) -> str:
        """The address of a path as clients reach it: by `http.public_url`, or else by the name that they used."""
        public = self._settings.public_url
        base = f"{urlsplit(public).scheme}://{urlsplit(public).netloc}" if public else str(URL(scope=scope).replace())
        parts = urlsplit(base)
        return f"{parts.scheme}://{parts.netloc}{path}"

    async def metadata(self, request: Request) -> Response:
        """Serve the metadata of the protected resource: where its tokens come from (RFC 9728)."""
        document: dict[str, Any] = {
            "resource": self._address(request.scope, MCP),
            "authorization_servers": [self._settings.issuer],
            "scopes_supported": format_scopes(USUAL_SCOPES).split(),
            "bearer_methods_supported": ["header"],
            "resource_name": "taskcell",
        }
        return JSONResponse(document, headers={"cache-control": "max-age=3600"})


class ScopedRoute(ABC):
    """A route for a caller that is signed in and whose token has one of its scopes."""

    scopes: ClassVar[frozenset[TokenScope]]

    def __init__(self) -> None:
        self.sign_in: SignIn | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        caller: Caller = scope["state"][STATE]
        if not caller.may(self.scopes):
            assert self.sign_in is not None
            await self.sign_in.insufficient(scope, missing(self.scopes), self.scopes)(scope, receive, send)
            return
        answer = await self.answer(caller, scope, receive, send)
        if answer is not None:
            await answer(scope, receive, send)

    @abstractmethod
    async def answer(self, caller: Caller, scope: Scope, receive: Receive, send: Send) -> Response | None:
        """Serve a request; return the answer that is still to be sent."""
