"""Serves a gateway over HTTP until a signal, and ends in an order in which every call still gets its answer."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import anyio
import structlog

from taskcell.addresses import is_loopback
from taskcell.auth.authentication import Authentication
from taskcell.config.http_table import HttpSettings
from taskcell.config.settings import Settings
from taskcell.deployment.key import caller_of_peer
from taskcell.errors import ConfigError, TaskcellError
from taskcell.gateway.admission import Admission, CallLimits
from taskcell.gateway.gateway import Gateway
from taskcell.http.app import HttpApp
from taskcell.http.listener import HttpListener
from taskcell.http.metrics import Metrics
from taskcell.http.peer_listener import listen_to_peers, serving_peers
from taskcell.http.readiness import Readiness
from taskcell.http.sign_in import MCP
from taskcell.mcp.passed_on import WORD_PATIENCE
from taskcell.mcp.server import TaskcellServer, build_server
from taskcell.mcp.transport.shutdown import Shutdown
from taskcell.model import DEFAULT_TASK, LOCAL_PRINCIPAL, TaskKey
from taskcell.pool.pool import Pool

log = structlog.get_logger(__name__)

#: Seconds for the whole end: ten are promised, and half a second is for the interpreter.
END_LIMIT = 9.5
#: Of these: for killing what calls wait for (two are the grace), for calls that wait for something else, and for the
#: last answers. The listener takes one more, and the pool at most four.
KILL_PATIENCE, CALL_PATIENCE, ANSWER_PATIENCE = 3.0, 0.3, 0.5
#: The same where other servers have this one's tasks at once: for calls to end by themselves, between two rounds of
#: ending them, and for leaving the sandboxes; from the signal until no further request is expected, for a Service goes
#: on sending some to a pod that ends; and for answers of calls that were handed on.
OWN_PATIENCE, END_TURN, BEQUEST_PATIENCE, SERVES_ON, PASSED_PATIENCE = 1.0, 0.1, 3.0, 6.5, 3.0
#: Seconds more while requests still come, of which the last was so many seconds ago at most: where a cluster is busy, a
#: Service goes on for longer.
SERVES_MORE, QUIET = 4.0, 2.0
#: All of these together, and what follows: inside the thirty seconds that a cluster gives a pod.
HAND_OVER_LIMIT = SERVES_ON + SERVES_MORE + WORD_PATIENCE + PASSED_PATIENCE
#: Seconds to tell the deployment's other servers that this one ends, and to see which there are: two requests.
NOTICE_PATIENCE = 1.0
#: Seconds between two attempts to join the deployment's other servers, where the cluster does not answer.
JOIN_TURN = 2.0


def check_binding(host: str, authentication: Authentication) -> None:
    """Refuse to listen where others can reach a server that asks nobody to sign in. Raises ConfigError."""
    if not is_loopback(host) and not authentication.is_required:
        raise ConfigError(
            f"Everyone who reaches {host} could run commands: set http.tokens_file (see `taskcell token create`) or "
            "http.jwks_url with issuer and audience, or listen on 127.0.0.1."
        )


async def serve_http(
    listening: socket.socket,
    settings: Settings,
    authentication: Authentication,
    open_gateway: Callable[[], AbstractAsyncContextManager[Gateway]],
    *,
    host: str,
    isolated: bool,
) -> None:
    """Serve MCP over HTTP until SIGTERM, SIGINT or SIGHUP; then clean up and return.

    Arguments:
        listening: a TCP socket.
        open_gateway: opens the gateway, which is closed with every sandbox before this returns.
        host: that the socket is bound to.

    Raises:
        TaskcellError: the gateway cannot be opened.
    """
    session, http = anyio.CancelScope(), settings.http
    shutdown = Shutdown(session, END_LIMIT + (HAND_OVER_LIMIT if http.peer_url else 0))
    async with anyio.create_task_group() as watching:
        watching.start_soon(shutdown.watch_signals)
        async with open_gateway() as gateway:
            admission = Admission(_limits(http))
            server = build_server(gateway, isolated=isolated, admission=admission)
            deployment = gateway.pool.deployment
            readiness = Readiness(
                gateway.engine, settings.deployment_id, lambda: not http.peer_url or deployment.claims is not None
            )
            metrics = Metrics(gateway)
            app = HttpApp(server, http, authentication, metrics=metrics.text, host=host, ready=readiness.is_ready)
            listener = HttpListener(app.requests)
            _measure(metrics, admission, app, listener)
            if http.peer_url:
                authentication.of_peer = lambda token: caller_of_peer(deployment.key, deployment.instance, token)
            peers = serving_peers(app.requests, listen_to_peers(host, http.peer_url), deployment.tls)
            async with app.running(), peers, anyio.create_task_group() as serving:
                serving.start_soon(listener.serve, [listening])
                if http.peer_url:
                    serving.start_soon(join_others, gateway.pool)
                _announce(listening, authentication)
                with session:
                    await anyio.sleep_forever()
                shutdown.begin()
                readiness.close()
                await _end(app, admission, gateway, server)
                listener.stop()
        watching.cancel_scope.cancel()


def _limits(http: HttpSettings) -> CallLimits:
    return CallLimits(http.max_concurrent_calls, http.max_calls_per_principal, http.calls_per_minute)


def _measure(metrics: Metrics, admission: Admission, app: HttpApp, listener: HttpListener) -> None:
    metrics.gauge("calls_running", "Calls that are running.", lambda: admission.running)
    metrics.gauge("sessions", "Sessions of the handshake's era.", lambda: app.sessions)
    metrics.gauge("connections", "Connections of clients.", lambda: len(listener.server_state.connections))


async def _end(app: HttpApp, admission: Admission, gateway: Gateway, server: TaskcellServer) -> None:
    """End the calls, let their answers leave, then end what goes on without an end. Bounded."""
    with anyio.move_on_after(NOTICE_PATIENCE):
        await gateway.pool.deployment.begin_to_leave()
    if gateway.pool.leaving.begin():
        await hand_over(app, admission, gateway, server)
    app.requests.close()
    admission.close()
    with anyio.move_on_after(KILL_PATIENCE):
        await gateway.end_calls()
        with anyio.move_on_after(CALL_PATIENCE):
            await admission.ended()
    admission.cancel()
    with anyio.move_on_after(CALL_PATIENCE):
        await admission.ended()
    server.changes.close()
    with anyio.move_on_after(ANSWER_PATIENCE):
        await app.requests.answered()
    app.requests.cancel()


async def hand_over(
    app: HttpApp, admission: Admission, gateway: Gateway, server: TaskcellServer, linger: float = SERVES_ON
) -> None:
    """Leave every task to the other servers, then hand on what still comes to this one, until nothing should any more.

    Whoever sends requests to servers learns some seconds late that this one ends. Call `pool.leaving.begin` before.

    Arguments:
        linger: seconds of all that, and somewhat more while requests come.
    """
    began = anyio.current_time()
    app.requests.leave()
    with anyio.move_on_after(OWN_PATIENCE):
        await admission.ended()
    with anyio.move_on_after(KILL_PATIENCE - OWN_PATIENCE):
        async with anyio.create_task_group() as ending:
            ending.start_soon(_end_calls, gateway)
            await admission.ended()
            ending.cancel_scope.cancel()
    admission.close()
    gateway.pool.leaving.stop_making()
    with anyio.move_on_after(CALL_PATIENCE):
        await admission.ended()
    admission.cancel()
    with anyio.move_on_after(BEQUEST_PATIENCE):
        try:
            await gateway.pool.leaving.hand_over()
        except TaskcellError as error:
            log.warning("Other servers have this one's tasks some seconds late.", reason=str(error))
    await anyio.sleep_until(began + linger)
    with anyio.move_on_after(SERVES_MORE):
        while anyio.current_time() - app.requests.came < QUIET:  # noqa: ASYNC110 - it looks at the time
            await anyio.sleep(END_TURN)
    await server.tools.neighbours.passed_on.answer_all()
    with anyio.move_on_after(PASSED_PATIENCE):
        await app.requests.answered()


async def _end_calls(gateway: Gateway) -> None:
    """Have calls return, also those that only get their sandbox now."""
    while True:
        await gateway.end_calls()
        await anyio.sleep(END_TURN)


async def join_others(pool: Pool) -> None:
    """Be one of the deployment's servers before the first call: the others hand calls on, and die."""
    while True:
        try:
            await pool.of_task(TaskKey(LOCAL_PRINCIPAL, DEFAULT_TASK))
        except TaskcellError as error:
            log.warning("The deployment's other servers cannot be reached yet.", reason=str(error))
            await anyio.sleep(JOIN_TURN)
        else:
            return


def _announce(listening: socket.socket, authentication: Authentication) -> None:
    host, port = listening.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    log.info(f"Serving MCP at http://{shown}:{port}{MCP}.", address=f"{shown}:{port}")
    if not authentication.is_required:
        log.warning("Nobody has to sign in: every program on this machine can run commands. See docs/remote.md.")
    elif not is_loopback(host):
        log.warning("Tokens cross the network as they are: let clients reach the server through a proxy with TLS.")
