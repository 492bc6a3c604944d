"""SOCKS 5 (RFC 1928): CONNECT without authentication, for a program that has reached the sandbox's own loopback."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address

import anyio
from anyio.streams.buffered import BufferedByteReceiveStream

from taskcell.destinations import Destination
from taskcell.egress.gate import REQUEST_TIMEOUT, Gate
from taskcell.egress.relay import relay
from taskcell.egress.rules import NotConnected, Why
from taskcell.supervisor.tunnels import Tunnel

SOCKS_VERSION = 5
_NO_AUTHENTICATION, _NONE_ACCEPTABLE = 0, 0xFF
_CONNECT = 1
_IPV4, _NAME, _IPV6 = 1, 3, 4
#: The field REP of a reply: for each kind of failure, and for what the request asks.
_REPLIES = {
    Why.DENIED: 2,
    Why.ADDRESS: 2,
    Why.MALFORMED: 1,
    Why.UNKNOWN_NAME: 4,
    Why.UNREACHABLE: 5,
    Why.TIMEOUT: 4,
    Why.BOUND: 1,
    Why.ASKED: 2,
}
_NO_SUCH_COMMAND, _NO_SUCH_ADDRESS = 7, 8


class _Fault(Exception):
    """What the client sent is not a request that can be served; the argument is its reply, empty for none."""

    def __init__(self, reply: bytes = b"") -> None:
        self.reply = reply


def _reply(code: int) -> bytes:
    """A reply; the address in it is not told, for nothing in the sandbox could use it."""
    return bytes((SOCKS_VERSION, code, 0, _IPV4)) + bytes(6)


async def serve_socks(stream: BufferedByteReceiveStream, tunnel: Tunnel, gate: Gate) -> None:
    """Serve the one connection that a client asks for.

    Raises TimeoutError when its request is not whole in time, IncompleteRead when it never will be.

    Arguments:
        stream: reads from the tunnel.
    """
    try:
        with anyio.fail_after(REQUEST_TIMEOUT):
            to = await _read_request(stream, tunnel)
    except _Fault as fault:
        if fault.reply:
            await tunnel.send(fault.reply)
        return
    except ValueError as error:
        gate.refuse(NotConnected(Why.MALFORMED, str(error)), "socks5")
        await tunnel.send(_reply(_REPLIES[Why.MALFORMED]))
        return
    try:
        async with gate.connection(to, "socks5") as (upstream, traffic):
            await tunnel.send(_reply(0))
            early = stream.buffer
            if early:
                traffic.count_sent(len(early))
                await upstream.send(early)
            await relay(tunnel, upstream, gate.account(), traffic)
    except NotConnected as failure:
        await tunnel.send(_reply(_REPLIES[failure.why]))


async def _read_request(stream: BufferedByteReceiveStream, tunnel: Tunnel) -> Destination:
    """Read a greeting and a request. Raises _Fault, and ValueError where the host cannot be read."""
    _, count = await stream.receive_exactly(2)
    if _NO_AUTHENTICATION not in await stream.receive_exactly(count or 1):
        raise _Fault(bytes((SOCKS_VERSION, _NONE_ACCEPTABLE)))
    await tunnel.send(bytes((SOCKS_VERSION, _NO_AUTHENTICATION)))
    version, command, _, kind = await stream.receive_exactly(4)
    if version != SOCKS_VERSION:
        raise _Fault
    if command != _CONNECT:
        raise _Fault(_reply(_NO_SUCH_COMMAND))
    if kind == _IPV4:
        host = str(IPv4Address(await stream.receive_exactly(4)))
    elif kind == _IPV6:
        host = str(IPv6Address(await stream.receive_exactly(16)))
    elif kind == _NAME:
        (size,) = await stream.receive_exactly(1)
        host = (await stream.receive_exactly(size)).decode("utf-8", "replace") if size else ""
    else:
        raise _Fault(_reply(_NO_SUCH_ADDRESS))
    (port,) = struct.unpack(">H", await stream.receive_exactly(2))
    return Destination.read(host, port)
