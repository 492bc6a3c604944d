"""Connections of a person to what listens in a task's sandbox: judged, bounded, and written down."""

from __future__ import annotations

import errno
import math
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass

import anyio

from taskcell.audit.log import AuditFailed
from taskcell.byte_streams import MAX_TASK_CONNECTIONS
from taskcell.destinations import MAX_PORT
from taskcell.egress.relay import Traffic
from taskcell.errors import BadArgument, ErrorCode, NoRoom, SandboxLost, TaskcellError
from taskcell.gateway.trail import Trail
from taskcell.model import Command, TaskKey
from taskcell.policy.policy import AuthorizedCommand
from taskcell.pool.pool import Pool
from taskcell.sandbox.sandbox import Sandbox
from taskcell.supervisor.tunnels import Tunnel, TunnelRefused
from taskcell.text import shown
from taskcell.tools.catalog import PORTS

#: Seconds for a connection in the sandbox: nothing is between the two ends but its own loopback.
PORT_TIMEOUT = 10.0
#: Connections at once of one principal.
MAX_PRINCIPAL_CONNECTIONS = 128


class NothingListens(TaskcellError):
    """No program of the task accepts connections on that port."""

    code = ErrorCode.NOT_FOUND


@dataclass(slots=True)
class PortTraffic(Traffic):
    """Connections to ports of this server's sandboxes, and bytes towards the sandbox and from it."""

    connected: int = 0
    open: int = 0


@dataclass(slots=True)
class PortConnection:
    """A connection that stands. Whoever carries its bytes counts them."""

    tunnel: Tunnel
    traffic: PortTraffic


class PortConnections:
    """Opens connections to ports.

    Arguments:
        authorize: the gateway's. Raises Denied, AuditFailed.
    """

    def __init__(self, pool: Pool, authorize: Callable[[Command], AuthorizedCommand], trail: Trail) -> None:
        self._pool = pool
        self._authorize = authorize
        self._trail = trail
        self._of_task: Counter[TaskKey] = Counter()
        self._of_principal: Counter[str] = Counter()
        self.totals = PortTraffic()

    async def check(self, task: TaskKey, port: int) -> list[Sandbox]:
        """Return the task's sandboxes, its terminal's first. Raises a TaskcellError if there are none, or no such port.

        Nothing is connected, and nothing judged.
        """
        if not 1 <= port <= MAX_PORT:
            raise BadArgument(f"The port must be a number from 1 to {MAX_PORT}.")
        if (await self._pool.holder(task)).door is not None:
            raise SandboxLost("Another server of this deployment has the task; ask that one.")
        usable = [sandbox for sandbox in await self._pool.sandboxes(task) if sandbox.usable]
        sandboxes = sorted(usable, key=lambda sandbox: sandbox.profile.kind != "terminal")
        if not sandboxes:
            raise TaskcellError(f"The task {shown(task.task)} has no sandbox now.", code=ErrorCode.NOT_FOUND)
        return sandboxes

    @asynccontextmanager
    async def connection(self, task: TaskKey, port: int) -> AsyncIterator[PortConnection]:
        """Connect to a port of the task's terminal, or else of one of its skills' sandboxes.

        Raises a TaskcellError: nothing listens there, the task has no sandbox, the policy denies it, or there are too
        many connections. What a sandbox that ends breaks raises BrokenResourceError.
        """
        sandboxes = await self.check(task, port)
        with self._counted(task):
            async with AsyncExitStack() as held:
                tunnel = await self._first(task, port, sandboxes, held)
                traffic, began = PortTraffic(), time.monotonic()
                self.totals.connected += 1
                self.totals.open += 1
                try:
                    yield PortConnection(tunnel, traffic)
                finally:
                    self.totals.open -= 1
                    self.totals.sent += traffic.sent
                    self.totals.received += traffic.received
                    with suppress(AuditFailed):  # the connection is over
                        seconds = time.monotonic() - began
                        self._trail.disconnected(task, port, traffic.sent, traffic.received, seconds)

    async def _first(self, task: TaskKey, port: int, sandboxes: list[Sandbox], held: AsyncExitStack) -> Tunnel:
        """Connect to the first sandbox in which something listens. Raises a TaskcellError if none does."""
        for sandbox in sandboxes:
            self._authorize(Command(task, PORTS, sandbox.profile, (), str(port), timeout=math.inf))
            async with AsyncExitStack() as trial:
                trial.enter_context(self._pool.holding(task, sandbox, serves=True))
                try:
                    with anyio.fail_after(PORT_TIMEOUT):
                        tunnel = await sandbox.channel.tunnels.open(port)
                except TunnelRefused as refused:
                    if refused.errno == errno.ENOBUFS:
                        raise NoRoom("The sandbox has too many connections; close some, or try again soon.") from None
                    continue
                except TimeoutError:
                    sentence = f"Port {port} of the task does not accept connections in time; try again."
                    raise TaskcellError(sentence, code=ErrorCode.TIMEOUT) from None
                trial.push_async_callback(_close, tunnel)
                held.push_async_callback(trial.pop_all().aclose)
                return tunnel
        raise NothingListens(
            f"Nothing listens on port {port} in the task {shown(task.task)}. A server that listens there on 127.0.0.1, "
            "::1 or all addresses can be reached; start it, and try again."
        )

    @contextmanager
    def _counted(self, task: TaskKey) -> Iterator[None]:
        """Count one connection. Raises NoRoom."""
        if self._of_task[task] >= MAX_TASK_CONNECTIONS:
            raise NoRoom(f"The task has {MAX_TASK_CONNECTIONS} connections to its ports, the most at once; close some.")
        if self._of_principal[task.principal] >= MAX_PRINCIPAL_CONNECTIONS:
            raise NoRoom(f"You have {MAX_PRINCIPAL_CONNECTIONS} connections to ports, the most at once; close some.")
        self._of_task[task] += 1
        self._of_principal[task.principal] += 1
        try:
            yield
        finally:
            self._of_task[task] -= 1
            self._of_principal[task.principal] -= 1
            self._of_task += Counter()  # those without any are forgotten
            self._of_principal += Counter()


async def _close(tunnel: Tunnel) -> None:
    with suppress(SandboxLost), anyio.CancelScope(shield=True):  # bounded by the channel's own bound
        await tunnel.aclose()
