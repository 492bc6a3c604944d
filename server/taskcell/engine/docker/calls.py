"""Calls to one engine: each blocks a thread, not the event loop, and its failure becomes a TaskcellError."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TypeVar

import anyio
import anyio.to_thread

from taskcell.engine.docker.classify import classify
from taskcell.engine.docker.connection import CALL_TIMEOUT, Connection, connect
from taskcell.errors import EngineUnavailable

T = TypeVar("T")

#: Blocking calls at once: the engine handles creations mostly one after the other, so more would only wait there.
CALLS_AT_ONCE = 16
_ADVICE = "The person who runs the server must restart it, or see `taskcell doctor` on the host."


class Calls:
    """Nothing is connected before the first call, and a failed connection is tried again at the next one: a server
    that was started before its engine works as soon as the engine does.

    Arguments:
        host: the configuration's engine.host; empty to look where the docker command line does.
        environ: of the server; DOCKER_HOST, DOCKER_CONTEXT, TLS and home are read from it.
        connection: one that stands already; None to connect.
    """

    def __init__(self, host: str, environ: Mapping[str, str], connection: Connection | None = None) -> None:
        self._host = host
        self._environ = environ
        self._connection = connection
        self._connecting = anyio.Lock()
        self._turns = anyio.CapacityLimiter(CALLS_AT_ONCE)
        # Threads that nobody waits for any more take no turns: an engine that hangs would have them all.
        self._threads = anyio.CapacityLimiter(math.inf)

    async def connected(self) -> Connection:
        """The connection, made now if there is none yet. Raises EngineUnavailable."""
        if self._connection is None:
            async with self._connecting:
                if self._connection is None:
                    self._connection = await anyio.to_thread.run_sync(
                        connect, self._host, self._environ, abandon_on_cancel=True
                    )
        return self._connection

    async def __call__(
        self,
        doing: str,
        work: Callable[[Connection], T],
        *,
        within: float = CALL_TIMEOUT,
        advice: str = _ADVICE,
    ) -> T:
        """The result of `work`. A caller that is cancelled, or has waited long enough, does not wait for the thread.

        Arguments:
            doing: what the call does, as in "start the sandbox"; it stands in the error.
            within: seconds from the call's turn on; infinite for one whose requests alone are bounded.
            advice: what to do when they are over.

        Raises:
            EngineUnavailable: the engine does not answer.
            EngineError: what it refused or failed at.
        """
        connection = await self.connected()
        async with self._turns:
            with anyio.move_on_after(within):
                try:
                    return await anyio.to_thread.run_sync(
                        work, connection, abandon_on_cancel=True, limiter=self._threads
                    )
                except Exception as error:
                    raise classify(error, doing) from error
        raise EngineUnavailable(f"The engine could not {doing} within {within:g} s. {advice}")

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self._connection is not None:
            self._connection.client.close()
