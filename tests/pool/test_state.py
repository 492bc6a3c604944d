"""The pool's decisions, without any I/O: whatever the order of events, the state stays consistent."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import anyio
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from taskcell.config.settings import PolicySettings, Settings
from taskcell.engine.base import Container
from taskcell.errors import EngineError
from taskcell.model import Reuse, TaskKey
from taskcell.policy.policy import AuthorizedProfile, Policy
from taskcell.pool.bounds import Bounds
from taskcell.pool.slot import Decision, Lease, Slot, SlotState
from taskcell.pool.state import Slots
from taskcell.profile.build import terminal_profile
from taskcell.sandbox.sandbox import Sandbox
from taskcell.supervisor.channel import Channel
from taskcell.supervisor.requests import Spawn

NUMBERS = itertools.count()
SETTINGS = Settings()
POLICY = Policy(PolicySettings())
PROFILE = terminal_profile(SETTINGS)
AUTHORIZED = POLICY.authorize_profile(PROFILE)
ONCE = POLICY.authorize_profile(replace(PROFILE, kind="skill", entrypoint=("x",), reuse=Reuse.CALL))
CHANGED = POLICY.authorize_profile(replace(PROFILE, memory=PROFILE.memory // 2 if PROFILE.memory else None))


class OpenStream(anyio.abc.ByteStream):
    """A stream that says nothing: a channel over it is alive until it is told otherwise."""

    async def receive(self, max_bytes: int = 65536) -> bytes:
        await anyio.sleep_forever()
        raise anyio.EndOfStream

    async def send(self, item: bytes) -> None: ...

    async def send_eof(self) -> None: ...

    async def aclose(self) -> None: ...


def sandbox(profile: AuthorizedProfile) -> Sandbox:
    channel = Channel(b"t" * 32, 60)
    channel._stream = OpenStream()
    channel.quiet_since = 0
    container = Container(
        f"id-{next(NUMBERS)}", "name", "/workspace", "/.taskcell/supervisor", "/run/taskcell.state", "1000:1000"
    )
    return Sandbox(profile, container, channel, output_chars=1000, spool=1000)


def named(profile: AuthorizedProfile, name: str) -> AuthorizedProfile:
    """The same profile under another name."""
    return POLICY.authorize_profile(replace(profile.profile, name=name))


def key(task: str = "t", profile: str = "terminal", principal: str = "local") -> tuple[TaskKey, str]:
    return TaskKey(principal, task), profile


@dataclass
class Asked:
    """A lease, and the first decision that came of it."""

    lease: Lease
    decision: Decision | None

    @property
    def slot(self) -> Slot:
        assert self.lease.slot is not None
        return self.lease.slot

    @property
    def create(self) -> bool:
        return self.decision is not None and self.decision.create

    @property
    def check(self) -> bool:
        return self.decision is not None and self.decision.check

    @property
    def retired(self) -> Slot | None:
        return None if self.decision is None else self.decision.retired

    @property
    def evicted(self) -> tuple[Slot, ...]:
        return () if self.decision is None else self.decision.evicted


def ask(slots: Slots, wanted: tuple[TaskKey, str], profile: AuthorizedProfile = AUTHORIZED, now: float = 0) -> Asked:
    lease = slots.lease(wanted, profile)
    return Asked(lease, next(iter(slots.assign(now)), None))


def release(slots: Slots, asked: Asked, now: float) -> Decision | None:
    return next(iter(slots.withdraw(asked.lease, now)), None)


def made(slots: Slots, asked: Asked) -> Slot:
    """The slot that was asked for, with its sandbox ready."""
    slots.ready(asked.slot, sandbox(asked.slot.profile))
    return asked.slot


def test_a_second_lease_shares_the_first_ones_creation() -> None:
    slots = Slots()
    first = ask(slots, key(), AUTHORIZED, 0)
    second = ask(slots, key(), AUTHORIZED, 1)
    assert (first.create, second.create) == (True, False)
    assert first.slot is second.slot
    assert first.slot.leases == 2


def test_a_failed_creation_is_forgotten_so_that_the_next_lease_tries_afresh() -> None:
    slots = Slots()
    first = ask(slots, key(), AUTHORIZED, 0)
    slots.failed(first.slot, EngineError("no"))
    assert ask(slots, key(), AUTHORIZED, 1).create


def test_a_lost_sandbox_is_succeeded_and_the_answer_says_that_its_files_are_lost() -> None:
    slots = Slots()
    first = ask(slots, key(), AUTHORIZED, 0)
    dies = sandbox(AUTHORIZED)
    slots.ready(first.slot, dies)
    dies.channel._lose("its channel ended")
    second = ask(slots, key(), AUTHORIZED, 1)
    assert second.create
    assert second.retired is first.slot
    slots.ready(second.slot, sandbox(AUTHORIZED))
    assert slots.take_notes(second.slot) == [
        "The task's sandbox had died (its channel ended) and was replaced by a fresh one; "
        "the files that were in the workspace are lost."
    ]
    assert slots.take_notes(second.slot) == []


def test_a_doomed_sandbox_is_succeeded_when_its_lease_ends_and_its_files_are_kept() -> None:
    slots = Slots()
    lease = ask(slots, key(), AUTHORIZED, 0)
    stained = sandbox(AUTHORIZED)
    slots.ready(lease.slot, stained)
    stained.doomed = "2 of its processes survived the kill"
    after = release(slots, lease, 1)
    assert after is not None
    assert after.retired is lease.slot
    slots.ready(after.slot, sandbox(AUTHORIZED), kept_files=True)
    assert "still there" in slots.take_notes(after.slot)[0]


def test_a_changed_profile_gets_a_fresh_sandbox_also_while_the_old_one_is_made() -> None:
    slots = Slots()
    first = ask(slots, key(), AUTHORIZED, 0)
    second = ask(slots, key(), CHANGED, 1)
    assert second.create
    assert second.retired is first.slot
    slots.ready(first.slot, sandbox(AUTHORIZED))
    assert first.slot.state is SlotState.RETIRED


def test_what_a_failed_creation_was_to_succeed_is_put_back_for_the_files_live_in_it_alone() -> None:
    slots = Slots()
    first = made(slots, ask(slots, key(), AUTHORIZED, 0))
    second = ask(slots, key(), CHANGED, 1)
    assert second.retired is first
    slots.failed(second.slot, EngineError("no such image"))
    assert list(slots) == [first]
    assert ask(slots, key(), AUTHORIZED, 2).slot is first


def test_a_creation_that_was_replaced_and_failed_leaves_what_it_was_to_succeed_to_its_heir() -> None:
    slots = Slots()
    first = made(slots, ask(slots, key(), AUTHORIZED, 0))
    second = ask(slots, key(), CHANGED, 1)
    third = ask(slots, key(), AUTHORIZED, 2)
    slots.failed(second.slot, EngineError("no"))
    assert slots.heir(first) is third.slot
    slots.failed(third.slot, EngineError("no"))
    assert list(slots) == [first]


def test_a_slot_that_only_its_configuration_replaced_is_idle_when_its_last_call_ends() -> None:
    slots = Slots()
    asked = ask(slots, key(), AUTHORIZED, 0)
    first = made(slots, asked)
    changed = ask(slots, key(), CHANGED, 1)
    assert changed.decision is not None
    assert (changed.retired, changed.decision.at_once) == (first, False)
    assert not first.idle.is_set()
    release(slots, asked, 2)
    assert first.idle.is_set()


def test_a_slot_whose_task_was_closed_under_its_call_is_idle_when_that_call_ends() -> None:
    slots = Slots()
    asked = ask(slots, key(), AUTHORIZED, 0)
    first = made(slots, asked)
    ask(slots, key(), CHANGED, 1)
    first.state = SlotState.CLOSED
    release(slots, asked, 2)
    assert first.idle.is_set()


def test_what_is_taken_out_is_not_leased_again() -> None:
    slots = Slots()
    first = ask(slots, key(), AUTHORIZED, 0)
    slots.ready(first.slot, sandbox(AUTHORIZED))
    assert slots.take(lambda slot: True) == [first.slot]
    assert ask(slots, key(), AUTHORIZED, 1).create


def test_calls_that_want_a_sandbox_each_get_one_each() -> None:
    slots = Slots()
    first, second = ask(slots, key(), ONCE, 0), ask(slots, key(), ONCE, 0)
    assert (first.create, second.create) == (True, True)
    assert first.slot is not second.slot


def test_a_spent_sandbox_goes_when_a_fresh_one_for_the_next_call_holds_the_workspace() -> None:
    slots = Slots()
    asked = ask(slots, key(), ONCE, 0)
    spent = made(slots, asked)
    after = release(slots, asked, 1)
    assert after is not None
    assert (after.create, after.retired, after.slot.leases) == (True, spent, 0)
    fresh = after.slot
    slots.ready(fresh, sandbox(ONCE))
    assert slots.take_notes(fresh) == []
    again = ask(slots, key(), ONCE, 2)
    assert (again.slot, again.create) == (fresh, False)


def test_a_spent_sandbox_goes_at_once_when_another_one_holds_the_workspace() -> None:
    slots = Slots()
    terminal = made(slots, ask(slots, key(), AUTHORIZED, 0))
    asked = ask(slots, key(profile="once"), ONCE, 0)
    spent = made(slots, asked)
    after = release(slots, asked, 1)
    assert after is not None
    assert (after.slot, after.create, after.retired) == (terminal, False, spent)


def test_a_sandbox_whose_call_was_cancelled_before_it_was_ready_is_the_next_calls() -> None:
    slots = Slots()
    asked = ask(slots, key(), ONCE, 0)
    cancelled = asked.slot
    assert release(slots, asked, 1) is None
    again = ask(slots, key(), ONCE, 2)
    assert (again.slot, again.create) == (cancelled, False)


# --- bounds


def test_at_the_bound_the_least_recently_used_idle_sandbox_makes_room() -> None:
    slots = Slots(Bounds(max_sandboxes=2))
    for now, task in enumerate("ab"):
        asked = ask(slots, key(task), now=now)
        made(slots, asked)
        release(slots, asked, 10 - now)  # `b` was used before `a` in the end
    third = ask(slots, key("c"), now=20)
    assert third.create
    assert [slot.task.task for slot in third.evicted] == ["b"]
    again = ask(slots, key("b"), now=30)
    slots.ready(again.slot, sandbox(AUTHORIZED))
    assert "was closed to make room for another task's" in slots.take_notes(again.slot)[0]


def test_a_sandbox_with_a_call_or_a_living_process_is_never_closed_for_another() -> None:
    slots = Slots(Bounds(max_sandboxes=2))
    called = ask(slots, key("called"))
    made(slots, called)
    works = ask(slots, key("works"))
    made(slots, works).sandbox.channel.living.add(1)  # type: ignore[union-attr]
    release(slots, works, 1)
    waits = slots.lease(key("waits"), AUTHORIZED)
    assert slots.assign(2) == []
    assert waits.slot is None
    works.slot.sandbox.channel.living.clear()  # type: ignore[union-attr]
    (decision,) = slots.assign(3)
    assert (decision.slot, decision.evicted) == (waits.slot, (works.slot,))


def test_a_principal_at_its_bound_gives_up_one_of_its_own() -> None:
    slots = Slots(Bounds(max_per_principal=1))
    mine, others = ask(slots, key(principal="me")), ask(slots, key(principal="you"))
    for asked in (mine, others):
        made(slots, asked)
        release(slots, asked, 1)
    assert ask(slots, key("next", principal="me"), now=2).evicted == (mine.slot,)


def test_a_freed_place_goes_to_the_principal_that_holds_the_fewest_and_then_to_who_came_first() -> None:
    slots = Slots(Bounds(max_sandboxes=2))
    held = [ask(slots, key(f"old-{number}", principal="greedy")) for number in range(2)]
    for asked in held:
        made(slots, asked)
    waiting = [
        slots.lease(key(name, principal=name.split("-")[0]), AUTHORIZED) for name in ("greedy-1", "poor-1", "poor-2")
    ]
    assert slots.assign(1) == []
    assert [decision.slot.task.task for decision in slots.withdraw(held[0].lease, 2)] == ["poor-1"]
    assert [decision.slot.task.task for decision in slots.withdraw(held[1].lease, 3)] == ["greedy-1"]
    assert waiting[2].slot is None


def test_a_task_keeps_its_files_when_it_needs_one_more_sandbox() -> None:
    slots = Slots(Bounds(max_sandboxes=1))
    terminal = ask(slots, key())
    made(slots, terminal)
    release(slots, terminal, 1)
    skill = slots.lease(key(profile="skill"), ONCE)
    assert slots.assign(2) == []
    assert skill.slot is None


def test_a_herd_of_calls_for_few_new_tasks_makes_one_creation_for_each() -> None:
    slots = Slots(Bounds(max_sandboxes=100, max_per_principal=100))
    leases = [slots.lease(key(f"task-{number % 50}"), AUTHORIZED) for number in range(200)]
    assert sum(decision.create for decision in slots.assign(0)) == 50
    assert all(lease.slot is not None for lease in leases)
    assert {lease.slot.leases for lease in leases if lease.slot} == {4}


def test_idle_is_counted_from_the_end_of_the_last_call_or_process() -> None:
    slots = Slots()
    asked = ask(slots, key(), now=0)
    slot = made(slots, asked)
    assert slot.sandbox is not None
    slot.sandbox.channel.quiet_since = 0
    assert slots.take_idle(1000, 10) == []
    release(slots, asked, 1000)
    slot.sandbox.channel.living.add(1)
    assert slots.take_idle(2000, 10) == []
    slot.sandbox.channel.living.clear()
    slot.sandbox.channel.quiet_since = 2000
    assert slots.take_idle(2009, 10) == []
    assert slots.take_idle(2010, 10) == [slot]


# --- warm


def warm(slots: Slots, now: float = 0) -> Slot:
    """The next warm slot, with its sandbox ready."""
    (decision,) = slots.next_warm(now)
    assert decision.create
    slots.ready(decision.slot, sandbox(decision.slot.profile))
    return decision.slot


def test_a_new_task_takes_a_warm_sandbox_and_no_other_task_ever_gets_it() -> None:
    slots = Slots(Bounds(warm=1))
    made(slots, ask(slots, key("first")))
    ready = warm(slots)
    assert slots.next_warm(0) == []
    taken = ask(slots, key("second"))
    assert (taken.slot, taken.create, taken.check, ready.task) == (ready, False, True, key("second")[0])
    assert not ready.settled.is_set()
    assert ask(slots, key("second")).slot is ready
    assert ask(slots, key("third")).slot is not ready


def test_a_new_task_waits_for_the_warm_sandbox_that_is_being_made() -> None:
    slots = Slots(Bounds(warm=1))
    made(slots, ask(slots, key("first")))
    (decision,) = slots.next_warm(0)
    taken = ask(slots, key("second"))
    assert (taken.slot, taken.create, taken.check) == (decision.slot, False, False)


def test_a_task_that_has_files_takes_no_warm_sandbox() -> None:
    slots = Slots(Bounds(warm=1))
    made(slots, ask(slots, key("first")))
    warm(slots)
    assert ask(slots, key("first", "skill")).create


def test_warm_sandboxes_count_and_make_room_first() -> None:
    slots = Slots(Bounds(max_sandboxes=2, warm=1))
    first = ask(slots, key("first"))
    made(slots, first)
    ready = warm(slots)
    skill = ask(slots, key("second", "skill"), ONCE)
    assert (skill.create, skill.evicted) == (True, (ready,))
    made(slots, skill)
    assert slots.next_warm(1) == []


def test_a_warm_sandbox_of_a_changed_profile_is_dropped() -> None:
    slots = Slots(Bounds(warm=1))
    made(slots, ask(slots, key("first")))
    old = warm(slots)
    made(slots, ask(slots, key("second"), CHANGED))
    (drop,) = slots.next_warm(1)
    assert drop.evicted == (old,)
    assert warm(slots).profile == CHANGED


def test_all_warm_sandboxes_of_changed_profiles_are_closed() -> None:
    slots = Slots(Bounds(warm=2))
    made(slots, ask(slots, key("first")))
    old = {warm(slots), warm(slots)}
    made(slots, ask(slots, key("second"), CHANGED))
    (drop,) = slots.next_warm(1)
    assert set(drop.evicted) == old
    assert not old & set(slots)


def test_nothing_is_made_ready_before_a_profile_was_asked_for_or_where_files_are_on_disk() -> None:
    assert Slots(Bounds(warm=3)).next_warm(0) == []
    slots = Slots(Bounds(warm=3, persistent=True))
    made(slots, ask(slots, key()))
    assert slots.next_warm(0) == []


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

    def _follow(self, decisions: Iterable[Decision]) -> None:
        for decision in decisions:
            if decision.create or decision.check:
                assert decision.slot not in self.creating
                self.creating.append(decision.slot)
            leaving = [*decision.evicted, *([decision.retired] if decision.retired is not None else [])]
            for slot in decision.evicted:
                assert slot.leases == 0
                assert slot.sandbox is None or not slot.sandbox.usable or not slot.sandbox.channel.living
            for slot in leaving:
                assert slot not in self.to_close, "closed twice"
                self.to_close.append(slot)

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
            self.to_close = [old for old in self.to_close if old.state is not SlotState.READY]
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
            victim.channel._lose("its channel ended")
        elif what == "work":
            victim.channel.living.add(1)
        else:
            victim.channel.living.clear()
        self._settled()

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
            assert slot.state in (SlotState.CREATING, SlotState.READY)
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


TestAnyOrder = AnyOrder.TestCase


def test_a_spawn_is_bounded_by_default() -> None:
    assert Spawn(argv=[b"x"], env={}, cwd=b"/").spool == 16 << 20


@pytest.mark.parametrize("words", [("a", "b/c"), ("a/b", "c"), ("a", "b"), ("ab", "")])
def test_a_task_digest_holds_no_word_of_the_task_and_differs_by_principal(words: tuple[str, str]) -> None:
    digest = TaskKey(*words).digest
    assert digest != TaskKey(words[0] + words[1], "").digest or words[1] == ""
    assert set(digest) <= set("0123456789abcdef")
