"""The local door: every server's HTTP application, on a socket that only its own user can open."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import structlog

from taskcell.config.settings import Settings
from taskcell.gateway.gateway import Gateway
from taskcell.http.freed_memory import keep_freed_memory
from taskcell.mcp.transport.shutdown import Shutdown

if TYPE_CHECKING:
    from taskcell.gateway.admission import Admission
    from taskcell.http.app import HttpApp

log = structlog.get_logger(__name__)

#: Seconds at the server's end for the last answers to leave through this door. A stdio server has 4.5 in all.
LEAVE_TIMEOUT = 0.3
#: Seconds of these to kill what calls wait for; two are the grace.
END_PATIENCE = 3.0


@asynccontextmanager
async def with_local_door(
    open_gateway: Callable[[], AbstractAsyncContextManager[Gateway]], settings: Settings, *, isolated: bool
) -> AsyncIterator[Gateway]:
    """A gateway that is also served through its local door, from its first call on. Raises what `open_gateway` raises.

    Before its first call a server has no task that anybody could want to reach; some clients start one only to look.
    """
    async with open_gateway() as gateway, anyio.create_task_group() as serving:
        serving.start_soon(_guarded, gateway, settings, isolated)
        yield gateway
        serving.cancel_scope.cancel()


async def serve_own_client(
    open_gateway: Callable[[], AbstractAsyncContextManager[Gateway]],
    settings: Settings,
    *,
    isolated: bool,
    announce: Callable[[Path], None],
    ended: Callable[[], Awaitable[None]],
) -> None:
    """Serve the program that started this one, through a socket of its own; then clean up and return.

    Raises OSError where there is no place for a socket, and what `open_gateway` raises.

    Arguments:
        announce: called with the socket once the program can connect to it.
        ended: returns when that program has ended, or wants this one to.
    """
    session = anyio.CancelScope()
    shutdown = Shutdown(session)
    with tempfile.TemporaryDirectory(prefix="taskcell-") as folder:
        path = Path(folder) / "door"
        async with anyio.create_task_group() as watching:
            watching.start_soon(shutdown.watch_signals)
            async with open_gateway() as gateway, anyio.create_task_group() as serving:
                serving.start_soon(partial(_serve, path, gateway, settings, isolated, lambda: announce(path)))
                with session:
                    await ended()
                shutdown.begin()
                with anyio.move_on_after(END_PATIENCE):
                    await gateway.end_calls()
                serving.cancel_scope.cancel()
            watching.cancel_scope.cancel()


async def _guarded(gateway: Gateway, settings: Settings, isolated: bool) -> None:
    await gateway.pool.begun.wait()
    keep_freed_memory()
    path = gateway.pool.deployment.door
    if path is None:
        return
    try:
        await _serve(path, gateway, settings, isolated)
    except Exception:  # whatever it is: the server's other door goes on
        log.exception("The local door is closed.", path=str(path))
    finally:
        with suppress(OSError):
            path.unlink(missing_ok=True)


async def _serve(
    path: Path, gateway: Gateway, settings: Settings, isolated: bool, listening: Callable[[], None] = lambda: None
) -> None:
    """Serve until it is cancelled; call `listening` once clients can connect."""
    # Not before the first call, which is answered by now: a server's start must be quick.
    from taskcell.auth.authentication import Authentication
    from taskcell.deployment.doors import listen_at
    from taskcell.gateway.admission import Admission
    from taskcell.http.app import HttpApp
    from taskcell.http.listener import HttpListener
    from taskcell.http.metrics import Metrics
    from taskcell.http.readiness import Readiness
    from taskcell.http.removal import REMOVE, Removal
    from taskcell.mcp.server import build_server

    admission = Admission()
    server = build_server(gateway, isolated=isolated, admission=admission)
    app = HttpApp(
        server,
        settings.http,
        Authentication(None, None),
        metrics=Metrics(gateway).text,
        host="localhost",
        ready=Readiness(gateway.engine, settings.deployment_id).is_ready,
        more={REMOVE: Removal(gateway)},
    )
    try:
        door = listen_at(path)
    except OSError as error:
        log.warning("There is no local door; `taskcell exec --task` finds no task here.", reason=error.strerror)
        return
    listener = HttpListener(app.requests)
    with door:
        async with app.running(), anyio.create_task_group() as serving:
            serving.start_soon(listener.serve, [door])
            listening()
            try:
                await anyio.sleep_forever()
            finally:
                await _leave(app, admission)
                server.changes.close()
                listener.close()


async def _leave(app: HttpApp, admission: Admission) -> None:
    """End calls and requests; shielded and bounded."""
    app.requests.close()
    admission.close()
    admission.cancel()
    with anyio.move_on_after(LEAVE_TIMEOUT, shield=True):
        await app.requests.answered()
    app.requests.cancel()
