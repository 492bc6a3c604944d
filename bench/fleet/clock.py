"""Time that passes from event to event, and stations where work waits for its turn."""

from __future__ import annotations

import heapq
import itertools
from collections import Counter, defaultdict, deque
from collections.abc import Callable
from functools import partial

#: Seconds over which the busy time of a station is summed up to find its peak, and the share of its capacity from which
#: on it counts as used up in them.
WINDOW, FULL = 10.0, 0.99


class Clock:
    """Runs events in the order of their times; those of one time in the order in which they were planned."""

    def __init__(self) -> None:
        self.now = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()

    def after(self, seconds: float, event: Callable[[], None]) -> None:
        """Plan an event."""
        heapq.heappush(self._events, (self.now + seconds, next(self._numbers), event))

    def run(self) -> None:
        """Run until nothing is planned any more."""
        events, pop = self._events, heapq.heappop
        while events:
            self.now, _, event = pop(events)
            event()


def nothing() -> None:
    """Follows what nobody waits for."""


class Rate:
    """Counts what happens, to find the busiest WINDOW."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._counts: Counter[int] = Counter()

    def note(self, times: int = 1) -> None:
        """It happens so many times now."""
        self._counts[int(self._clock.now / WINDOW)] += times

    @property
    def peak(self) -> float:
        """Times a second in the busiest WINDOW."""
        return max(self._counts.values(), default=0) / WINDOW


class Station:
    """Work is done at so many places at once; the rest waits, first come, first served.

    Arguments:
        places: how many pieces of work are done at once.
    """

    def __init__(self, clock: Clock, places: int = 1) -> None:
        self._clock = clock
        self._places = places
        self._doing = 0
        self._waiting: deque[tuple[float, Callable[[], None]]] = deque()
        self._busy: defaultdict[int, float] = defaultdict(float)
        self.begun = Rate(clock)
        self.served = 0
        self.longest_queue = 0

    @property
    def peak(self) -> float:
        """The highest share of its capacity that was in use over a WINDOW."""
        return max(self._busy.values(), default=0.0) / (WINDOW * self._places)

    @property
    def used_up(self) -> float:
        """For how many seconds it was."""
        return WINDOW * sum(busy >= FULL * WINDOW * self._places for busy in self._busy.values())

    def serve(self, seconds: float, then: Callable[[], None]) -> None:
        """Do a piece of work that takes so long at a place of its own, and go on with `then`."""
        self._waiting.append((seconds, then))
        self._begin()
        self.longest_queue = max(self.longest_queue, len(self._waiting))

    def _begin(self) -> None:
        while self._waiting and self._doing < self._places:
            seconds, then = self._waiting.popleft()
            self._doing += 1
            self.served += 1
            self.count(seconds)
            self._clock.after(seconds, partial(self._end, then))

    def _end(self, then: Callable[[], None]) -> None:
        self._doing -= 1
        self._begin()
        then()

    def count(self, seconds: float) -> None:
        """Note time in each window that it touches; `serve` does so by itself."""
        at, end = self._clock.now, self._clock.now + seconds
        self.begun.note()
        while at < end:
            window = int(at / WINDOW)
            until = min(end, (window + 1) * WINDOW)
            self._busy[window] += until - at
            at = until if until > at else end
