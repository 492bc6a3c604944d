"""How many calls a server takes at once and in a minute, and how it ends those that run when it closes."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import anyio

from taskcell.errors import NoRoom, SandboxLost

#: Seconds that `calls_per_minute` counts.
MINUTE = 60.0
#: Principals whose calls are remembered before those without a call in the last minute are forgotten.
MAX_COUNTED = 1000


@dataclass(frozen=True, slots=True)
class CallLimits:
    """The keys of `[http]` by these names. None means without a limit."""

    max_concurrent_calls: int | None = None
    max_calls_per_principal: int | None = None
    calls_per_minute: int | None = None


class EndedByServer(SandboxLost):
    """The server's end has ended the call."""


class Admission:
    """Lets calls in, and knows which are running."""

    def __init__(self, limits: CallLimits | None = None) -> None:
        self._limits = limits or CallLimits()
        self._running: Counter[str] = Counter()
        self._begun: dict[str, deque[float]] = {}
        self._scopes: set[anyio.CancelScope] = set()
        self._closing = False
        self._idle = anyio.Event()

    @property
    def running(self) -> int:
        return self._running.total()

    @contextmanager
    def admitted(self, principal: str) -> Iterator[None]:
        """Count one call while this is entered.

        Raises:
            NoRoom: the principal, or the server, has too many calls; the message says what to wait for.
            SandboxLost: the server is closing; EndedByServer where it has ended the call.
        """
        self._admit(principal)
        with anyio.CancelScope() as scope:
            self._scopes.add(scope)
            try:
                yield
            finally:
                self._scopes.discard(scope)
                self._running[principal] -= 1
                if not self._running[principal]:
                    del self._running[principal]
                if not self._running:
                    self._idle.set()
        if scope.cancelled_caught:
            raise EndedByServer("The server is closing: the call was ended, with what it had started.")

    def _admit(self, principal: str) -> None:
        if self._closing:
            raise SandboxLost("The server is closing: nothing new is started; call again when it is back.")
        limits, own = self._limits, self._running[principal]
        if limits.max_calls_per_principal is not None and own >= limits.max_calls_per_principal:
            raise NoRoom(
                f"{own} of your calls are running, as many as http.max_calls_per_principal allows: call again when one "
                "of them has ended."
            )
        if limits.max_concurrent_calls is not None and self.running >= limits.max_concurrent_calls:
            raise NoRoom(
                f"The server runs {self.running} calls, as many as http.max_concurrent_calls allows: call again in a "
                "few seconds."
            )
        self._count(principal)
        self._running[principal] += 1

    def _count(self, principal: str) -> None:
        """Raise NoRoom if the principal has begun too many calls within the window; else count one more."""
        most, now = self._limits.calls_per_minute, time.monotonic()
        if most is None:
            return
        if len(self._begun) > MAX_COUNTED:
            self._begun = {name: times for name, times in self._begun.items() if times[-1] > now - MINUTE}
        begun = self._begun.setdefault(principal, deque())
        while begun and begun[0] <= now - MINUTE:
            begun.popleft()
        if len(begun) >= most:
            raise NoRoom(
                f"You have made {most} calls within a minute, as many as http.calls_per_minute allows: call again in "
                f"{begun[0] + MINUTE - now:.0f} s."
            )
        begun.append(now)

    # --- the end -----------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Let no call in from now on."""
        self._closing = True

    async def ended(self) -> None:
        """Wait until no call is running. Call `close` before."""
        if self._running:
            self._idle = anyio.Event()
            await self._idle.wait()

    def cancel(self) -> None:
        """End every call that is running; each is answered with an error."""
        for scope in self._scopes:
            scope.cancel()
