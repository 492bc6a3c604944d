"""The pool's decisions, without any I/O: whatever the order of events, the state stays consistent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from pool_slots import (
    AUTHORIZED,
    CHANGED,
    ONCE,
    key,
    named,
    sandbox,
)
from taskcell.errors import EngineError
from taskcell.policy.policy import AuthorizedProfile
from taskcell.pool.bounds import Bounds, make_room
from taskcell.pool.slot import Lease, Slot, SlotState, Step
from taskcell.pool.state import Slots
from taskcell.pool.warm import warm_for


class AnyOrder(RuleBasedStateMachine):
    """Leases, creations, failures, deaths, closings, warm ones and idle ones in any order, under tight bounds."""

    BOUNDS = Bounds(max_sandboxes=4, max_per_principal=3, warm=2)

    def __init__(self) -> None:
        super().__init__()
        self.slots = Slots(self.BOUNDS)
        self.now = 0.0
        self.creating: list[Slot] = []
        self.leases: list[Lease] = []
        self.to_close: list[Slot] = []
        self.seen: set[Slot] = set()

    def _follow(self, steps: Iterable[Step]) -> None:
        for step in steps:
            if step.create or step.check:
                assert step.slot not in self.creating
                self.creating.append(step.slot)
            leaving = [*step.evicted, *([step.retired] if step.retired is not None else [])]
            for slot in step.evicted:
                assert slot.leases == slot.servers
                if slot.sandbox is not None and slot.sandbox.usable and slot.sandbox.channel.living:
                    self._left_running_made_room(slot, step.slot)
            for slot in leaving:
                assert slot not in self.to_close, "closed twice"
                self.to_close.append(slot)

    def _left_running_made_room(self, victim: Slot, slot: Slot) -> None:
        """What runs in a sandbox was ended for another one: only where nothing idle could make room."""
        assert victim.task != slot.task
        others = [other for other in self.slots if other is not slot and not other.is_busy and other.task != slot.task]
        if victim.task.principal == slot.task.principal:
            others = [other for other in others if other.task.principal == slot.task.principal]
        assert not others
        held = Counter(other.task.principal for other in self.slots)
        if victim.task.principal != slot.task.principal:
            assert held[victim.task.principal] >= held[slot.task.principal]

    def _settled(self) -> None:
        self._follow(self.slots.assign(self.now))

    @rule(
        principal=st.sampled_from(["me", "you"]),
        task=st.sampled_from("ab"),
        name=st.sampled_from(["terminal", "skill"]),
        profile=st.sampled_from([AUTHORIZED, CHANGED, ONCE]),
    )
    def lease(self, principal: str, task: str, name: str, profile: AuthorizedProfile) -> None:
        self.now += 1
        # The name of a profile is a part of it: a key's calls differ in their configuration alone.
        self.leases.append(self.slots.lease(key(task, name, principal), named(profile, name)))
        self._settled()

    @rule(data=st.data())
    def withdraw(self, data: Any) -> None:
        if self.leases:
            lease = self.leases.pop(data.draw(st.integers(0, len(self.leases) - 1)))
            self._follow(self.slots.withdraw(lease, self.now))

    @rule(data=st.data())
    def serve(self, data: Any) -> None:
        ready = [slot for slot in self.slots if slot.sandbox is not None and slot.state is SlotState.READY]
        ready = [slot for slot in ready if not slot.is_warm and not slot.is_for_one_call]
        if ready:
            slot = data.draw(st.sampled_from(ready))
            slot.sandbox.channel.living.add(2)
            self.leases.append(self.slots.hold(slot, serves=True))
            self._settled()

    @rule(data=st.data())
    def finish_creation(self, data: Any) -> None:
        if self.creating:
            slot = self.creating.pop(data.draw(st.integers(0, len(self.creating) - 1)))
            self.slots.ready(slot, slot.sandbox or sandbox(slot.profile))
            self._settled()

    @rule(data=st.data())
    def fail_creation(self, data: Any) -> None:
        if self.creating:
            slot = self.creating.pop(data.draw(st.integers(0, len(self.creating) - 1)))
            self.slots.failed(slot, EngineError("no"))
            # What it was to succeed may have been put back.
            self.to_close = [old for old in self.to_close if not old.is_in_place]
            self._settled()

    @rule(data=st.data(), what=st.sampled_from(["doom", "lose", "work", "rest"]))
    def happen(self, data: Any, what: str) -> None:
        ready = [
            slot
            for slot in self.slots
            if slot.state is SlotState.READY and (what in ("doom", "lose") or not slot.is_warm)
        ]
        if not ready:
            return
        victim = data.draw(st.sampled_from(ready)).sandbox
        if what == "doom":
            victim.doomed = "a process survived"
        elif what == "lose":
            victim.channel.give_up("its channel ended")
        elif what == "work":
            victim.channel.living.add(1)
        else:
            victim.channel.living.clear()
        self._settled()

    @rule(data=st.data())
    def replace_lost(self, data: Any) -> None:
        lost = [slot for slot in self.slots if slot.state is SlotState.READY and not (slot.is_warm or slot.usable)]
        if lost:
            chosen = data.draw(st.sampled_from(lost))
            self._follow(self.slots.replace(lambda slot: slot is chosen, self.now))

    @rule(principal=st.sampled_from(["me", "you"]), task=st.sampled_from("ab"))
    def close(self, principal: str, task: str) -> None:
        taken = self.slots.take(lambda slot: slot.task == key(task, principal=principal)[0])
        assert not set(taken) & set(self.to_close)
        self.to_close += taken
        self._settled()

    @rule()
    def reset(self) -> None:
        self._follow(self.slots.replace(lambda slot: not slot.is_warm, self.now))
        self._settled()

    @rule(passed=st.floats(0, 10))
    def upkeep(self, passed: float) -> None:
        self.now += passed
        for slot in self.slots.take_idle(self.now, 5):
            assert slot.leases == 0
            assert slot not in self.to_close
            self.to_close.append(slot)
        self._settled()
        self._follow(self.slots.next_warm(self.now))

    @invariant()
    def every_sandbox_is_in_the_pool_or_on_its_way_out(self) -> None:
        current = list(self.slots)
        assert len({slot.key for slot in current}) == len(current)
        assert not set(current) & set(self.to_close)
        self.seen.update(current)
        for slot in self.seen - set(current) - set(self.to_close):
            assert slot.state is SlotState.FAILED, "in the pool no more, and nobody closes it"
        for lease in self.leases:
            slot = lease.slot
            assert slot is None or slot in current or slot in self.to_close or slot.state is SlotState.FAILED
        for slot in current:
            assert slot.is_in_place
            assert slot.settled.is_set() == (slot.state is SlotState.READY)
            assert (slot.state is SlotState.CREATING) == (slot in self.creating)
            assert slot.leases == sum(lease.slot is slot for lease in self.leases)
            if slot.is_for_one_call:
                assert slot.leases <= (0 if slot.key == slot.shared_key else 1)
            assert not slot.is_warm or not slot.leases

    @invariant()
    def bounds_hold(self) -> None:
        assert len(self.slots) <= self.BOUNDS.max_sandboxes
        for principal in ("me", "you"):
            held = sum(slot.task.principal == principal for slot in self.slots)
            assert held <= self.BOUNDS.max_per_principal

    @invariant()
    def nobody_waits_who_need_not(self) -> None:
        assert self.slots.waiting == sum(lease.slot is None for lease in self.leases)
        if len(self.slots) < self.BOUNDS.max_sandboxes:
            held = {slot.task.principal: 0 for slot in self.slots}
            for slot in self.slots:
                held[slot.task.principal] += 1
            for lease in self.leases:
                full = held.get(lease.key[0].principal, 0) >= self.BOUNDS.max_per_principal
                assert lease.slot is not None or full

    @invariant()
    def nobody_is_left_out_who_would_find_room(self) -> None:
        slots = list(self.slots)
        turns = self.slots._waiting.in_turn(slots, self.BOUNDS)
        waiting = [lease for lease in self.leases if lease.slot is None]
        assert set(turns) <= set(waiting)
        for lease in set(waiting) - set(turns):
            assert lease.key not in {slot.key for slot in slots}
            needs_more = warm_for(slots, lease) is None
            assert make_room(slots, self.BOUNDS, lease.key[0], self.now, needs_more=needs_more) is None


TestAnyOrder = AnyOrder.TestCase
