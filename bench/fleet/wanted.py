"""How many places of one server were wanted at once, also by one principal, and for how long these were all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from fleet.work import Call
from taskcell.pool.bounds import Bounds
from taskcell.pool.slot import Slot


class Wanted:
    """Noted each so many seconds.

    Arguments:
        every: these seconds.
    """

    def __init__(self, bounds: Bounds, every: float) -> None:
        self._bounds, self._every = bounds, every
        self.most = self.most_of_one = 0
        self.places_used_up = self.bound_used_up = 0.0

    def note(self, slots: Iterable[Slot], calls: Iterable[Call]) -> None:
        """These sandboxes there are now, and these calls. Of a principal no more count than it may have."""
        tasks = {slot.task for slot in slots if slot.is_busy} | {call.task.key for call in calls}
        of_each = Counter(task.principal for task in tasks)
        places = sum(min(count, self._bounds.max_per_principal) for count in of_each.values())
        of_one = max(of_each.values(), default=0)
        self.most, self.most_of_one = max(self.most, places), max(self.most_of_one, of_one)
        self.places_used_up += self._every * (places >= self._bounds.max_sandboxes)
        self.bound_used_up += self._every * (of_one >= self._bounds.max_per_principal)
