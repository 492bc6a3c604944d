"""The calls that wait for a place in the pool, and the order in which they are served."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

from taskcell.pool.bounds import Bounds, may_go
from taskcell.pool.slot import Lease, Slot, SlotKey


class Waiting:
    """By principal, and by what each waits for: where hundreds wait, a decision looks only at those it may be about."""

    def __init__(self) -> None:
        self._leases: dict[str, dict[SlotKey, list[Lease]]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, lease: Lease) -> None:
        self._leases.setdefault(lease.key[0].principal, {}).setdefault(lease.key, []).append(lease)
        self._count += 1

    def remove(self, lease: Lease) -> None:
        """Raises KeyError, ValueError: it does not wait."""
        of_principal = self._leases[lease.key[0].principal]
        of_principal[lease.key].remove(lease)
        self._count -= 1
        if not of_principal[lease.key]:
            del of_principal[lease.key]
        if not of_principal:
            del self._leases[lease.key[0].principal]

    def of(self, key: SlotKey) -> Sequence[Lease]:
        """Those that wait for one slot, first come first."""
        return list(self._leases.get(key[0].principal, {}).get(key, ()))

    def in_turn(self, slots: Collection[Slot], bounds: Bounds) -> list[Lease]:
        """The calls in the order in which they are served: those of the principals with the fewest sandboxes first.

        Left out are those that need a place of which `make_room` would find none, seen once for all of a principal's.
        """
        held = Counter(slot.task.principal for slot in slots)
        going = Counter(slot.task.principal for slot in slots if may_go(slot))
        is_full = len(slots) >= bounds.max_sandboxes and not going
        able: list[Lease] = []
        stuck: set[str] = set()
        for principal, leases in self._leases.items():
            if is_full or (held[principal] >= bounds.most_of(principal) and not going[principal]):
                stuck.add(principal)
            else:
                able += (lease for alike in leases.values() for lease in alike)
        for slot in slots:
            if slot.task.principal in stuck:  # what waits for a sandbox that there is needs no further place
                able += self.of(slot.key)
        return sorted(able, key=lambda lease: (held[lease.key[0].principal], lease.arrived))
