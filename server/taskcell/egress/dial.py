"""Resolves a name, judges what it finds, and connects to exactly that."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from ipaddress import ip_address

import anyio
import anyio.to_thread

from taskcell.destinations import Address, Destination
from taskcell.egress.rules import NotConnected, Rules, Why
from taskcell.raw_stream import RawStream, connect_tcp

#: Seconds for a name's addresses: what glibc's resolver takes for two servers that do not answer.
RESOLVE_TIMEOUT = 20.0
#: Seconds to connect to one address, and to all of a name's together: a host that answers does so within one or two.
CONNECT_TIMEOUT = 10.0
CONNECT_TIMEOUT_ALL = 30.0
#: Lookups at once: threads of their own, so that a server of names that hangs holds up no call.
LOOKUPS_AT_ONCE = 64
#: Addresses of a name that are tried.
MOST_ADDRESSES = 8

#: Returns a name's addresses. Raises OSError.
Resolve = Callable[[str, int], Awaitable[Sequence[Address]]]


class SystemResolver:
    """Asks the system for addresses, in threads."""

    def __init__(self) -> None:
        self._limiter = anyio.CapacityLimiter(LOOKUPS_AT_ONCE)

    async def __call__(self, host: str, port: int) -> Sequence[Address]:
        def look() -> list[Address]:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            return [ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]

        return await anyio.to_thread.run_sync(look, limiter=self._limiter, abandon_on_cancel=True)


async def dial(to: Destination, rules: Rules, resolve: Resolve) -> tuple[RawStream, Address]:
    """Connect to a destination that the rules allow; return the stream and the address. Raises NotConnected.

    The name is looked up once, and nothing but the addresses of that lookup is connected to.
    """
    rules.judge(to)
    allowed = rules.judged(to, await _addresses(to, resolve))
    failures: list[str] = []
    with anyio.move_on_after(CONNECT_TIMEOUT_ALL):
        for address in allowed[:MOST_ADDRESSES]:
            if is_own(address, to.port) and not rules.names(address, to.port):
                raise NotConnected(
                    Why.ADDRESS,
                    f"The address of {to} is the server's own machine, which this sandbox may not reach.",
                    to,
                )
            with anyio.move_on_after(CONNECT_TIMEOUT):
                try:
                    return await connect_tcp(address, to.port), address
                except OSError as error:
                    failures.append(_reason(error))
    if failures:
        raise NotConnected(Why.UNREACHABLE, f"{to} cannot be reached: {failures[-1]}.", to)
    raise NotConnected(Why.TIMEOUT, f"{to} did not answer.", to)


async def _addresses(to: Destination, resolve: Resolve) -> Sequence[Address]:
    if to.address is not None:
        return (to.address,)
    try:
        with anyio.fail_after(RESOLVE_TIMEOUT):
            found = await resolve(to.host, to.port)
    except TimeoutError:
        raise NotConnected(Why.TIMEOUT, f"The name of {to} was not resolved in time.", to) from None
    except (OSError, UnicodeError) as error:
        raise NotConnected(Why.UNKNOWN_NAME, f"The name of {to} has no address ({_reason(error)}).", to) from None
    if not found:
        raise NotConnected(Why.UNKNOWN_NAME, f"The name of {to} has no address.", to)
    return list(dict.fromkeys(found))


def is_own(address: Address, port: int) -> bool:
    """Whether an address is this machine's. Asks the kernel for a route, and sends nothing."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect((str(address), port))
        own: str = probe.getsockname()[0]
        return ip_address(own.partition("%")[0]) == address
    return False


def _reason(error: Exception) -> str:
    cause = error.__cause__ if isinstance(error, OSError) and error.strerror is None else None
    found = cause if isinstance(cause, OSError) else error
    return getattr(found, "strerror", None) or "it failed"
