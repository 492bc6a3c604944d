"""What one task may use of the network: connections at once, bytes, and bytes a second."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import anyio

from taskcell.config.egress_table import EgressSettings
from taskcell.destinations import Address, Destination
from taskcell.egress.dial import Resolve
from taskcell.egress.rules import NotConnected, Why
from taskcell.model import TaskKey
from taskcell.units import format_size

#: Tasks whose use is remembered. The one that was used least recently is forgotten, if it has no connection.
MAX_ACCOUNTS = 10_000
#: Names that a task has looked up at once: slow ones must not keep others' waiting.
LOOKUPS_OF_A_TASK = 4
#: Seconds of its rate that a task may take at once.
BURST = 1.0


@dataclass(slots=True)
class Account:
    """One task's use."""

    settings: EgressSettings
    connections: int = 0
    used: int = 0
    _due: float = field(default_factory=time.monotonic)
    _lookups: anyio.Semaphore = field(default_factory=lambda: anyio.Semaphore(LOOKUPS_OF_A_TASK))

    async def look_up(self, resolve: Resolve, host: str, port: int) -> Sequence[Address]:
        """Find a name's addresses, few names at once. Raises OSError."""
        async with self._lookups:
            return await resolve(host, port)

    @contextmanager
    def connection(self, to: Destination) -> Iterator[None]:
        """Count a connection while it stands. Raises NotConnected when there are too many, or too many bytes went."""
        most = self.settings
        if self.connections >= most.max_connections:
            sentence = f"This task has {self.connections} connections, the most at once (egress.max_connections)."
            raise NotConnected(Why.BOUND, sentence, to)
        if self.used >= most.max_bytes:
            sentence = f"This task has used its {format_size(most.max_bytes)} of the network (egress.max_bytes)."
            raise NotConnected(Why.BOUND, sentence, to)
        self.connections += 1
        try:
            yield
        finally:
            self.connections -= 1

    async def spend(self, size: int) -> bool:
        """Count bytes that came, and wait as long as the rate asks; return whether more may follow."""
        self.used += size
        now = time.monotonic()
        self._due = max(self._due, now - BURST) + size / self.settings.max_rate
        if self._due > now:
            await anyio.sleep(self._due - now)
        return self.used < self.settings.max_bytes


class Accounts:
    """The accounts of the server's tasks."""

    def __init__(self, settings: EgressSettings) -> None:
        self._settings = settings
        self._all: OrderedDict[TaskKey, Account] = OrderedDict()

    def of(self, task: TaskKey) -> Account:
        account = self._all.pop(task, None) or Account(self._settings)
        self._all[task] = account
        while len(self._all) > MAX_ACCOUNTS:
            oldest, unused = next(iter(self._all.items()))
            if unused.connections:
                break
            del self._all[oldest]
        return account
