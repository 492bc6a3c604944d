"""Time that passes from event to event, and stations where work waits for its turn."""

from __future__ import annotations

import heapq
import itertools
from collections import Counter, defaultdict, deque
from collections.abc import Callable
from functools import partial

#: Seconds over which the busy time of a station is summed up to find its peak.
WINDOW = 10.0


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
        while self._events:
            self.now, _, event = heapq.heappop(self._events)
            event()


class Station:
    """Work is done at so many places at once; the rest waits, first come, first served.

    Arguments:
        places: how many pieces of work are done at once.
    """

    def __init__(self, clock: Clock, places: int = 1) -> None:
        self._clock = clock
        self._places = places
        self._doing = 0
        self._closed_until = 0.0
        self._waiting: deque[tuple[float, Callable[[], None]]] = deque()
        self._busy: defaultdict[int, float] = defaultdict(float)
        self._begun: Counter[int] = Counter()
        self.served = 0
        self.longest_queue = 0

    @property
    def peak(self) -> float:
        """The highest share of its capacity that was in use over a WINDOW."""
        return max(self._busy.values(), default=0.0) / (WINDOW * self._places)

    @property
    def peak_rate(self) -> float:
        """Pieces of work a second in its busiest WINDOW."""
        return max(self._begun.values(), default=0) / WINDOW

    def serve(self, seconds: float, then: Callable[[], None]) -> None:
        """Do a piece of work that takes so long at a place of its own, and go on with `then`."""
        self._waiting.append((seconds, then))
        self._begin()
        self.longest_queue = max(self.longest_queue, len(self._waiting))

    def close(self, seconds: float) -> None:
        """Begin nothing for so long. What is being done ends in time."""
        self._closed_until = self._clock.now + seconds
        self._clock.after(seconds, self._begin)

    def _begin(self) -> None:
        while self._waiting and self._doing < self._places and self._clock.now >= self._closed_until:
            seconds, then = self._waiting.popleft()
            self._doing += 1
            self.served += 1
            self._count(seconds)
            self._clock.after(seconds, partial(self._end, then))

    def _end(self, then: Callable[[], None]) -> None:
        self._doing -= 1
        self._begin()
        then()

    def _count(self, seconds: float) -> None:
        """Note the time in each window that it touches."""
        at, end = self._clock.now, self._clock.now + seconds
        self._begun[int(at / WINDOW)] += 1
        while at < end:
            window = int(at / WINDOW)
            until = min(end, (window + 1) * WINDOW)
            self._busy[window] += until - at
            at = until if until > at else end
