"""Connects to an API server for a stream: with TLS, and through a proxy where there is one."""

from __future__ import annotations

import anyio
import anyio.abc
from anyio.streams.buffered import BufferedByteReceiveStream
from anyio.streams.tls import TLSStream
from websockets.exceptions import InvalidProxy
from websockets.proxy import Proxy, get_proxy, parse_proxy, prepare_connect_request
from websockets.uri import WebSocketURI

from taskcell.engine.kubernetes.kubeconfig import Cluster
from taskcell.errors import EngineUnavailable

#: Bytes of a proxy's answer before the stream begins.
_HEAD_MAX = 1 << 16


async def connect(to: WebSocketURI, cluster: Cluster) -> anyio.abc.ByteStream:
    """Return a stream to where a WebSocket is to be opened. Raises OSError, EngineUnavailable."""
    found = cluster.proxy or get_proxy(to)
    if not found:
        raw: anyio.abc.ByteStream = await anyio.connect_tcp(to.host, to.port)
    else:
        raw = await _through(_proxy(found), to)
    if not to.secure:
        return raw
    name = cluster.server_name or to.host
    return await TLSStream.wrap(raw, hostname=name, ssl_context=cluster.tls, standard_compatible=False)


def _proxy(address: str) -> Proxy:
    try:
        proxy = parse_proxy(address)
    except (InvalidProxy, ValueError):  # not what it is: that may hold a password
        raise EngineUnavailable("The address of the proxy to the Kubernetes API is not one.") from None
    if proxy.scheme not in ("http", "https"):
        raise EngineUnavailable(f"The proxy to the Kubernetes API is of a kind that is not spoken ({proxy.scheme}).")
    return proxy


async def _through(proxy: Proxy, to: WebSocketURI) -> anyio.abc.ByteStream:
    raw: anyio.abc.ByteStream = await anyio.connect_tcp(proxy.host, proxy.port)
    try:
        if proxy.scheme == "https":
            raw = await TLSStream.wrap(raw, hostname=proxy.host, standard_compatible=False)
        await raw.send(prepare_connect_request(proxy, to))
        # Nothing comes after the head before this end has spoken.
        head = await BufferedByteReceiveStream(raw).receive_until(b"\r\n\r\n", _HEAD_MAX)
        status = head.split(b" ", 2)[1:2]
        if not status or not status[0].startswith(b"2"):
            said = status[0].decode("ascii", "replace") if status else "nothing"
            raise EngineUnavailable(f"The proxy {proxy.host} does not connect to the Kubernetes API (it says {said}).")
    except (anyio.IncompleteRead, anyio.DelimiterNotFound):
        await anyio.aclose_forcefully(raw)
        raise EngineUnavailable(f"The proxy {proxy.host} does not speak HTTP.") from None
    except BaseException:
        await anyio.aclose_forcefully(raw)
        raise
    return raw
