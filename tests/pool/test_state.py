"""The pool's decisions, without any I/O: leases, creations that fail, and what succeeds what."""

from __future__ import annotations

import pytest

from pool_slots import (
    AUTHORIZED,
    CHANGED,
    ONCE,
    ask,
    key,
    made,
    release,
    sandbox,
    warm,
)
from taskcell.errors import EngineError
from taskcell.model import TaskKey
from taskcell.pool.bounds import Bounds
from taskcell.pool.slot import SlotState
from taskcell.pool.state import Slots
from taskcell.supervisor.requests import Spawn


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
    dies.channel.give_up("its channel ended")
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


def test_a_warm_sandbox_that_is_put_back_while_it_is_checked_cannot_be_used_before_the_check_ends() -> None:
    slots = Slots(Bounds(warm=1))
    made(slots, ask(slots, key("other")))
    ready = warm(slots)
    taken = ask(slots, key())
    assert (taken.slot, taken.check) == (ready, True)
    second = ask(slots, key(), CHANGED, 1)
    slots.failed(second.slot, EngineError("no"))
    assert slots.heir(ready) is None
    assert (ready in list(slots), ready.state) == (True, SlotState.CREATING)
    assert ready.sandbox is not None
    slots.ready(ready, ready.sandbox)
    assert (ready.state, ready.settled.is_set()) == (SlotState.READY, True)


def test_a_slot_that_only_its_configuration_replaced_is_idle_when_its_last_call_ends() -> None:
    slots = Slots()
    asked = ask(slots, key(), AUTHORIZED, 0)
    first = made(slots, asked)
    changed = ask(slots, key(), CHANGED, 1)
    assert changed.step is not None
    assert (changed.retired, changed.step.at_once) == (first, False)
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


def test_a_spawn_is_bounded_by_default() -> None:
    assert Spawn(argv=[b"x"], env={}, cwd=b"/").spool == 16 << 20


@pytest.mark.parametrize("words", [("a", "b/c"), ("a/b", "c"), ("a", "b"), ("ab", "")])
def test_a_task_digest_holds_no_word_of_the_task_and_differs_by_principal(words: tuple[str, str]) -> None:
    digest = TaskKey(*words).digest
    assert digest != TaskKey(words[0] + words[1], "").digest or words[1] == ""
    assert set(digest) <= set("0123456789abcdef")
