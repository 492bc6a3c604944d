"""Passes bytes between a tunnel and a connection, both ways, until both have ended or one is broken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import anyio
import anyio.abc

from taskcell.egress.bounds import Account
from taskcell.errors import SandboxLost

#: Seconds without a byte either way after which a connection is given up: a quarter of an hour is what firewalls on the
#: way grant too, and a program that wants more sends something.
IDLE_TIMEOUT = 900.0
#: What a stream raises that is broken, and a sandbox that is lost.
BROKEN = (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError, SandboxLost)
#: Bytes that are received at once.
RELAY_PIECE = 1 << 18


@dataclass(slots=True)
class Traffic:
    """Bytes that a program has sent and received."""

    sent: int = 0
    received: int = 0

    def count_sent(self, size: int) -> None:
        self.sent += size

    def count_received(self, size: int) -> None:
        self.received += size


@dataclass(slots=True)
class Relay:
    """One connection's two ways.

    Arguments:
        account: counts the bytes, and slows them down.
    """

    account: Account
    traffic: Traffic
    idle: anyio.CancelScope

    async def pump(
        self, source: anyio.abc.ByteStream, sink: anyio.abc.ByteStream, count: Callable[[int], None]
    ) -> None:
        """Pass on what one side sends, and its end."""
        while True:
            try:
                data = await source.receive(RELAY_PIECE)
            except anyio.EndOfStream:
                await sink.send_eof()
                return
            count(len(data))
            self.idle.deadline = anyio.current_time() + IDLE_TIMEOUT
            if not await self.account.spend(len(data)):
                raise anyio.BrokenResourceError("the task has used up its bytes")
            await sink.send(data)


async def relay(
    tunnel: anyio.abc.ByteStream, upstream: anyio.abc.ByteStream, account: Account, traffic: Traffic
) -> None:
    """Pass bytes on, both ways, until both sides have ended. The caller closes both.

    Raises BrokenResourceError when one breaks, or when nothing has come for IDLE_TIMEOUT.
    """
    with anyio.move_on_after(IDLE_TIMEOUT) as idle:
        ways = Relay(account, traffic, idle)

        async def way(source: anyio.abc.ByteStream, sink: anyio.abc.ByteStream, count: Callable[[int], None]) -> None:
            try:
                await ways.pump(source, sink, count)
            except BROKEN:
                idle.cancel()

        async with anyio.create_task_group() as both:
            both.start_soon(way, tunnel, upstream, traffic.count_sent)
            both.start_soon(way, upstream, tunnel, traffic.count_received)
    if idle.cancelled_caught:
        raise anyio.BrokenResourceError
