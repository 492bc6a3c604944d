"""The HTTP application of a server: its routes, and in which order a request is checked.

Host and Origin first, then the path, then who calls, then the body: nobody who is not signed in has a body read.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from types import MappingProxyType

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from taskcell.auth.authentication import Authentication
from taskcell.caller import Caller
from taskcell.config.http_table import HttpSettings
from taskcell.deployment.base import HANDED_CALLS
from taskcell.http.files import FILES, Files
from taskcell.http.handed_calls import HandedCalls
from taskcell.http.handing_on import HandingOn
from taskcell.http.hosts import Hosts
from taskcell.http.mcp_endpoint import McpEndpoint
from taskcell.http.mcp_handing_on import McpHandingOn
from taskcell.http.metrics import CONTENT_TYPE
from taskcell.http.ports import PORTS_PATH, Ports
from taskcell.http.programs import TASKS, TOOLS, Programs
from taskcell.http.refuse import refusal
from taskcell.http.removal import ADMINS, REMOVE, Removal
from taskcell.http.requests import Requests
from taskcell.http.sign_in import MCP, METADATA, SignIn
from taskcell.mcp.principal import STATE, missing
from taskcell.mcp.server import TaskcellServer
from taskcell.mcp.sessions import Sessions


class HttpApp:
    """The application. Serve it while `running` is entered.

    Arguments:
        metrics: what `/metrics` returns to callers with the scope `admin`.
        host: that the server listens on; it answers to this name.
        ready: returns whether the server can serve calls now.
        more: routes of this door alone, by path.
    """

    def __init__(
        self,
        server: TaskcellServer,
        settings: HttpSettings,
        authentication: Authentication,
        *,
        metrics: Callable[[], bytes],
        host: str,
        ready: Callable[[], Awaitable[bool]],
        more: Mapping[str, ASGIApp] = MappingProxyType({}),
    ) -> None:
        self._sessions = Sessions(server, max_body=settings.max_body)
        self._ready, self._metrics, self._settings = ready, metrics, settings
        gateway = server.tools.gateway

        def of_task(app: ASGIApp) -> SignIn:
            return SignIn(HandingOn(app, gateway) if settings.peer_url else app, authentication, settings)

        files = Files(gateway, server.tools.admission)
        self._files = files.sign_in = of_task(files)
        ports = Ports(gateway.ports, settings)
        self._ports = ports.sign_in = of_task(ports)
        programs = Programs(gateway, server.tools.admission)
        self._programs = programs.sign_in = of_task(programs)
        sessions = McpHandingOn(self._sessions.asgi_app, gateway, settings)
        endpoint = McpEndpoint(sessions, server, max_body=settings.max_body)
        self._mcp = endpoint.sign_in = SignIn(endpoint, authentication, settings)
        self._routes: dict[str, ASGIApp] = {
            MCP: self._mcp,
            "/healthz": _get(self._healthy),
            "/readyz": _get(self._is_ready),
            "/metrics": SignIn(self._admins(_get(self._measured)), authentication, settings),
        }
        if settings.peer_url:
            self._routes |= self._among_servers(HandedCalls(server.tools.handed), Removal(gateway), authentication)
        self._routes |= more
        if authentication.has_jwt:
            self._routes |= {METADATA: _get(self._mcp.metadata), METADATA + MCP: _get(self._mcp.metadata)}
        self.requests = Requests(Hosts(self._route, settings, host=host, asks_for_tokens=authentication.is_required))

    def _among_servers(
        self, handed: HandedCalls, removal: Removal, authentication: Authentication
    ) -> Mapping[str, ASGIApp]:
        """What servers of one deployment ask each other for."""
        apps: dict[str, ASGIApp] = {HANDED_CALLS: handed, REMOVE: self._admins(removal)}
        return {path: SignIn(app, authentication, self._settings) for path, app in apps.items()}

    @property
    def sessions(self) -> int:
        """How many sessions of the handshake's era are open."""
        return self._sessions.count

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Serve MCP. On leaving, every session ends."""
        async with self._sessions.run():
            yield

    async def _route(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        if path.startswith(FILES):
            route: ASGIApp | None = self._files
        elif path.startswith(PORTS_PATH):
            route = self._ports
        elif path.startswith((TOOLS, f"{TASKS}/")) or path == TASKS:
            route = self._programs
        else:
            route = self._routes.get(path)
        if route is None:
            sentence = f"There is nothing at this path; MCP is at {MCP}."
            await refusal(404, sentence)(scope, receive, send)
        else:
            await route(scope, receive, send)

    def _admins(self, app: ASGIApp) -> ASGIApp:
        """Serve only callers with the scope `admin`: what follows is about all principals."""

        async def admins(scope: Scope, receive: Receive, send: Send) -> None:
            caller: Caller = scope["state"][STATE]
            if caller.may(ADMINS):
                await app(scope, receive, send)
            else:
                await self._mcp.insufficient(scope, missing(ADMINS), ADMINS)(scope, receive, send)

        return admins

    async def _measured(self, request: Request) -> Response:
        return Response(self._metrics(), media_type=CONTENT_TYPE)

    async def _healthy(self, request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def _is_ready(self, request: Request) -> Response:
        is_ready = await self._ready()
        sentence = "ready" if is_ready else "not ready: the engine does not answer; the server's log tells more"
        return PlainTextResponse(f"{sentence}\n", 200 if is_ready else 503)


def _get(handler: Callable[[Request], Awaitable[Response]]) -> ASGIApp:
    """An application that serves GET and HEAD."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] in ("GET", "HEAD"):
            response = await handler(Request(scope, receive))
        else:
            response = refusal(405, "Only GET is served here.", {"allow": "GET, HEAD"})
        await response(scope, receive, send)

    return app
