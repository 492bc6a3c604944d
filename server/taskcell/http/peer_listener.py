"""Where a server serves the others of its deployment alone, over TLS."""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import anyio
from starlette.types import ASGIApp

from taskcell.errors import ConfigError
from taskcell.http.listener import HttpListener, listen


def listen_to_peers(host: str, peer_url: str) -> socket.socket | None:
    """A socket for `http.peer_url`; None where it is not `https`: then the server's usual one is meant.

    Arguments:
        host: that the server listens on.

    Raises:
        ConfigError: the port is taken, or none is named.
    """
    parts = urlsplit(peer_url)
    if peer_url and parts.port is None:
        raise ConfigError("http.peer_url: name the port at which this server is to serve the others.")
    if parts.scheme != "https" or parts.port is None:
        return None
    try:
        return listen(host, parts.port)
    except OSError as error:
        raise ConfigError(f"http.peer_url: the port {parts.port} cannot be used: {error.strerror or error}.") from None


@asynccontextmanager
async def serving_peers(
    app: ASGIApp, listening: socket.socket | None, tls: ssl.SSLContext | None
) -> AsyncIterator[None]:
    """Serve while this is entered, if there is a socket.

    Arguments:
        tls: by which the others know this server.
    """
    if listening is None or tls is None:
        yield
        return
    listener = HttpListener(app, tls)
    with listening:
        async with anyio.create_task_group() as serving:
            serving.start_soon(listener.serve, [listening])
            try:
                yield
            finally:
                listener.stop()
