"""The pool's decisions, without any I/O: whatever the order of events, the state stays consistent."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import anyio
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from taskcell.engine.base import Container
from taskcell.errors import EngineError
from taskcell.model import Reuse, TaskKey
from taskcell.policy import AuthorizedProfile, Policy
from taskcell.profile import terminal_profile
from taskcell.sandbox import Sandbox
from taskcell.settings import PolicySettings, Settings
from taskcell.slots import Decision, Slot, Slots, SlotState
from taskcell.supervisor.channel import Channel
from taskcell.supervisor.protocol import Spawn

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
    container = Container("id", "name", "/workspace", "/.taskcell/supervisor", "1000:1000")
    return Sandbox(profile, container, channel, output_chars=1000, spool=1000)


def key(task: str = "t", profile: str = "terminal") -> tuple[TaskKey, str]:
    return TaskKey("local", task), profile


def test_a_second_lease_shares_the_first_ones_creation() -> None:
    slots = Slots()
    first = slots.lease(key(), AUTHORIZED, "ws", 0)
    second = slots.lease(key(), AUTHORIZED, "ws", 1)
    assert (first.create, second.create) == (True, False)
    assert first.slot is second.slot
    assert first.slot.leases == 2


def test_a_failed_creation_is_forgotten_so_that_the_next_lease_tries_afresh() -> None:
    slots = Slots()
    first = slots.lease(key(), AUTHORIZED, "ws", 0)
    slots.failed(first.slot, EngineError("no"))
    assert slots.lease(key(), AUTHORIZED, "ws", 1).create


def test_a_lost_sandbox_is_succeeded_and_the_answer_says_that_its_files_are_lost() -> None:
    slots = Slots()
    first = slots.lease(key(), AUTHORIZED, "ws", 0)
    made = sandbox(AUTHORIZED)
    slots.ready(first.slot, made)
    made.channel._lose("its channel ended")
    second = slots.lease(key(), AUTHORIZED, "ws", 1)
    assert second.create
    assert second.retired is first.slot
    assert slots.take_notes(second.slot) == [
        "The task's sandbox had died (its channel ended) and was replaced by a fresh one; "
        "the files that were in the workspace are lost."
    ]
    assert slots.take_notes(second.slot) == []


def test_a_doomed_sandbox_is_succeeded_when_its_lease_ends_and_its_files_are_kept() -> None:
    slots = Slots()
    lease = slots.lease(key(), AUTHORIZED, "ws", 0)
    made = sandbox(AUTHORIZED)
    slots.ready(lease.slot, made)
    made.doomed = "2 of its processes survived the kill"
    after = slots.release(lease.slot, 1)
    assert after is not None
    assert after.retired is lease.slot
    assert "still there" in slots.take_notes(after.slot)[0]


def test_a_changed_profile_gets_a_fresh_sandbox_also_while_the_old_one_is_made() -> None:
    slots = Slots()
    first = slots.lease(key(), AUTHORIZED, "ws", 0)
    second = slots.lease(key(), CHANGED, "ws", 1)
    assert second.create
    assert second.retired is first.slot
    slots.ready(first.slot, sandbox(AUTHORIZED))
    assert first.slot.state is SlotState.RETIRED


def test_what_a_failed_creation_was_to_succeed_is_put_back_for_the_files_live_in_it_alone() -> None:
    slots = Slots()
    first = made(slots, slots.lease(key(), AUTHORIZED, "ws", 0))
    second = slots.lease(key(), CHANGED, "ws", 1)
    assert second.retired is first
    slots.failed(second.slot, EngineError("no such image"))
    assert list(slots) == [first]
    assert slots.lease(key(), AUTHORIZED, "ws", 2).slot is first


def test_a_creation_that_was_replaced_and_failed_leaves_what_it_was_to_succeed_to_its_heir() -> None:
    slots = Slots()
    first = made(slots, slots.lease(key(), AUTHORIZED, "ws", 0))
    second = slots.lease(key(), CHANGED, "ws", 1)
    third = slots.lease(key(), AUTHORIZED, "ws", 2)
    slots.failed(second.slot, EngineError("no"))
    assert slots.heir(first) is third.slot
    slots.failed(third.slot, EngineError("no"))
    assert list(slots) == [first]


def test_a_slot_that_only_its_configuration_replaced_is_idle_when_its_last_call_ends() -> None:
    slots = Slots()
    first = made(slots, slots.lease(key(), AUTHORIZED, "ws", 0))
    decision = slots.lease(key(), CHANGED, "ws", 1)
    assert (decision.retired, decision.at_once) == (first, False)
    assert not first.idle.is_set()
    slots.release(first, 2)
    assert first.idle.is_set()


def test_what_is_taken_out_is_not_leased_again() -> None:
    slots = Slots()
    first = slots.lease(key(), AUTHORIZED, "ws", 0)
    slots.ready(first.slot, sandbox(AUTHORIZED))
    assert slots.take(lambda slot: True) == [first.slot]
    assert slots.lease(key(), AUTHORIZED, "ws", 1).create


def made(slots: Slots, decision: Decision) -> Slot:
    """The decision's slot, with its sandbox ready."""
    slots.ready(decision.slot, sandbox(decision.slot.profile))
    return decision.slot


def test_calls_that_want_a_sandbox_each_get_one_each() -> None:
    slots = Slots()
    first, second = slots.lease(key(), ONCE, "ws", 0), slots.lease(key(), ONCE, "ws", 0)
    assert (first.create, second.create) == (True, True)
    assert first.slot is not second.slot


def test_a_spent_sandbox_goes_when_a_fresh_one_for_the_next_call_holds_the_workspace() -> None:
    slots = Slots()
    spent = made(slots, slots.lease(key(), ONCE, "ws", 0))
    after = slots.release(spent, 1)
    assert after is not None
    assert (after.create, after.retired, after.slot.leases) == (True, spent, 0)
    fresh = made(slots, after)
    assert slots.take_notes(fresh) == []
    again = slots.lease(key(), ONCE, "ws", 2)
    assert (again.slot, again.create) == (fresh, False)


def test_a_spent_sandbox_goes_at_once_when_another_one_holds_the_workspace() -> None:
    slots = Slots()
    terminal = made(slots, slots.lease(key(), AUTHORIZED, "ws", 0))
    spent = made(slots, slots.lease(key(profile="once"), ONCE, "ws", 0))
    after = slots.release(spent, 1)
    assert after is not None
    assert (after.slot, after.create, after.retired) == (terminal, False, spent)


def test_a_sandbox_whose_call_was_cancelled_before_it_was_ready_is_the_next_calls() -> None:
    slots = Slots()
    cancelled = slots.lease(key(), ONCE, "ws", 0).slot
    assert slots.release(cancelled, 1) is None
    again = slots.lease(key(), ONCE, "ws", 2)
    assert (again.slot, again.create) == (cancelled, False)


class AnyOrder(RuleBasedStateMachine):
    """Leases, creations, failures, deaths and closings in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.slots = Slots()
        self.now = 0.0
        self.creating: list[Slot] = []
        self.leased: list[Slot] = []
        self.to_close: list[Slot] = []

    def _follow(self, decision: Decision | None) -> None:
        if decision is None:
            return
        if decision.create:
            self.creating.append(decision.slot)
        if decision.retired is not None:
            assert decision.retired not in self.to_close, "closed twice"
            self.to_close.append(decision.retired)

    @rule(task=st.sampled_from("ab"), profile=st.sampled_from([AUTHORIZED, CHANGED, ONCE]))
    def lease(self, task: str, profile: AuthorizedProfile) -> None:
        self.now += 1
        decision = self.slots.lease(key(task), profile, "ws", self.now)
        assert decision.slot.profile == profile
        self._follow(decision)
        self.leased.append(decision.slot)

    @rule(data=st.data())
    def finish_creation(self, data: Any) -> None:
        if self.creating:
            slot = self.creating.pop(data.draw(st.integers(0, len(self.creating) - 1)))
            self.slots.ready(slot, sandbox(slot.profile))

    @rule(data=st.data())
    def fail_creation(self, data: Any) -> None:
        if self.creating:
            slot = self.creating.pop(data.draw(st.integers(0, len(self.creating) - 1)))
            self.slots.failed(slot, EngineError("no"))
            # What it was to succeed may have been put back.
            self.to_close = [old for old in self.to_close if old.state is not SlotState.READY]

    @rule(data=st.data())
    def release(self, data: Any) -> None:
        if self.leased:
            slot = self.leased.pop(data.draw(st.integers(0, len(self.leased) - 1)))
            self._follow(self.slots.release(slot, self.now))

    @rule(data=st.data(), doomed=st.booleans())
    def die(self, data: Any, doomed: bool) -> None:
        ready = [slot for slot in self.slots if slot.sandbox is not None]
        if ready:
            victim = data.draw(st.sampled_from(ready)).sandbox
            if doomed:
                victim.doomed = "a process survived"
            else:
                victim.channel._lose("its channel ended")

    @rule(task=st.sampled_from("ab"))
    def close(self, task: str) -> None:
        taken = self.slots.take(lambda slot: slot.key[0] == key(task)[0])
        assert not set(taken) & set(self.to_close)
        self.to_close += taken

    @rule()
    def reset(self) -> None:
        for decision in self.slots.replace(lambda slot: True, self.now):
            self._follow(decision)

    @invariant()
    def every_sandbox_is_in_the_pool_or_on_its_way_out(self) -> None:
        current = list(self.slots)
        assert len({slot.key for slot in current}) == len(current)
        assert not set(current) & set(self.to_close)
        for slot in self.leased:
            assert slot in current or slot in self.to_close or slot.state is SlotState.FAILED
        for slot in current:
            assert slot.state in (SlotState.CREATING, SlotState.READY)
            assert slot.settled.is_set() == (slot.state is SlotState.READY)
            assert slot.leases >= 0
            if slot.is_for_one_call:
                assert slot.leases <= (0 if slot.key == slot.shared_key else 1)


TestAnyOrder = AnyOrder.TestCase


def test_a_spawn_is_bounded_by_default() -> None:
    assert Spawn(argv=[b"x"], env={}, cwd=b"/").spool == 16 << 20


@pytest.mark.parametrize("words", [("a", "b/c"), ("a/b", "c"), ("a", "b"), ("ab", "")])
def test_a_task_digest_holds_no_word_of_the_task_and_differs_by_principal(words: tuple[str, str]) -> None:
    digest = TaskKey(*words).digest
    assert digest != TaskKey(words[0] + words[1], "").digest or words[1] == ""
    assert set(digest) <= set("0123456789abcdef")
