"""The pool's decisions at its bounds, about idle sandboxes, and about warm ones, without any I/O."""

from __future__ import annotations

import pytest

from pool_slots import (
    AUTHORIZED,
    CHANGED,
    ONCE,
    Asked,
    ask,
    key,
    made,
    release,
    sandbox,
    warm,
)
from taskcell.config.settings import PoolSettings
from taskcell.pool.bounds import Bounds
from taskcell.pool.slot import Slot
from taskcell.pool.state import Slots


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


@pytest.mark.parametrize(("bounds", "expected"), [({"max_per_principal": 1}, 1), ({"max_sandboxes": 1}, 0)])
def test_where_hundreds_of_tasks_of_one_principal_wait_one_look_decides_for_all(
    bounds: dict[str, int], expected: int
) -> None:
    looks: list[str] = []

    class Watched(Bounds):
        def most_of(self, principal: str) -> int:
            looks.append(principal)
            return super().most_of(principal)

    slots = Slots(Watched(**bounds))
    made(slots, ask(slots, key("first")))
    for number in range(300):
        slots.lease(key(f"waits {number}"), AUTHORIZED)
    looks.clear()
    assert slots.assign(1) == []
    assert len(looks) == expected


def test_where_hundreds_of_principals_wait_for_a_full_pool_nobody_is_looked_at_before_a_place_can_go() -> None:
    looks: list[str] = []

    class Watched(Bounds):
        def most_of(self, principal: str) -> int:
            looks.append(principal)
            return super().most_of(principal)

    slots = Slots(Watched(max_sandboxes=1))
    first = ask(slots, key("first"))
    made(slots, first)
    waiting = [slots.lease(key("t", principal=f"p{number}"), AUTHORIZED) for number in range(300)]
    looks.clear()
    assert slots.assign(1) == []
    assert looks == []
    release(slots, first, 1)
    assert [lease.slot is not None for lease in waiting] == [True] + [False] * 299


def left_running(slots: Slots, task: str, *, now: float, principal: str = "local") -> Slot:
    """A sandbox in which something lives that no call waits for."""
    asked = ask(slots, key(task, principal=principal), now=now)
    made(slots, asked).sandbox.channel.living.add(1)  # type: ignore[union-attr]
    release(slots, asked, now)
    return asked.slot


def test_a_sandbox_with_a_call_or_what_a_call_left_with_a_time_out_is_never_closed_for_another() -> None:
    slots = Slots(Bounds(max_sandboxes=2))
    called, works = ask(slots, key("called")), ask(slots, key("works"))
    made(slots, called)
    made(slots, works).sandbox.channel.living.add(1)  # type: ignore[union-attr]
    waits = slots.lease(key("waits"), AUTHORIZED)
    assert slots.assign(2) == []
    assert waits.slot is None
    works.slot.sandbox.channel.living.clear()  # type: ignore[union-attr]
    (step,) = slots.withdraw(works.lease, 3)
    assert (step.slot, step.evicted) == (waits.slot, (works.slot,))


def test_a_running_server_makes_room_only_where_nothing_is_idle_the_one_called_last_the_longest_ago_first() -> None:
    slots = Slots(Bounds(max_sandboxes=3))
    newer, older = left_running(slots, "newer", now=5), left_running(slots, "older", now=1)
    idle = ask(slots, key("idle"), now=6)
    made(slots, idle)
    release(slots, idle, 9)
    first = ask(slots, key("first"), now=10)
    assert first.evicted == (idle.slot,)
    made(slots, first)
    assert ask(slots, key("second"), now=11).evicted == (older,)
    assert ask(slots, key("third"), now=12).evicted == (newer,)
    waits = slots.lease(key("fourth"), AUTHORIZED)
    assert slots.assign(13) == []
    assert waits.slot is None


def test_a_sandbox_that_may_be_idle_in_a_moment_is_waited_for_before_a_server_is_ended() -> None:
    slots = Slots(Bounds(max_sandboxes=2))
    server = left_running(slots, "server", now=1)
    slots.hold(server, serves=True)
    ends = left_running(slots, "ends", now=9.5)
    waits = slots.lease(key("waits"), AUTHORIZED)
    assert slots.assign(10) == []
    assert [step.evicted for step in slots.assign(11)] == [(server,)]
    assert waits.slot is not None
    again = slots.lease(key("again"), AUTHORIZED)
    ends.sandbox.channel.living.clear()  # type: ignore[union-attr]
    assert [step.evicted for step in slots.assign(11)] == [(ends,)]
    assert again.slot is not None


def test_a_task_does_not_lose_its_server_to_a_skill_of_its_own() -> None:
    slots = Slots(Bounds(max_sandboxes=1))
    left_running(slots, "t", now=1)
    slots.lease(key("t", "skill"), ONCE)
    assert slots.assign(2) == []


def test_no_principal_loses_a_server_to_one_that_holds_as_many() -> None:
    slots = Slots(Bounds(max_sandboxes=4))
    for number in range(2):
        left_running(slots, f"mine-{number}", now=number, principal="me")
        left_running(slots, f"yours-{number}", now=number, principal="you")
    waits = slots.lease(key("new", principal="third"), AUTHORIZED)
    (step,) = slots.assign(5)
    assert waits.slot is step.slot
    (victim,) = step.evicted
    made(slots, Asked(waits, step))
    poor = "me" if victim.task.principal == "you" else "you"
    assert ask(slots, key("more", principal=poor), now=6).evicted[0].task.principal == poor


def test_a_principal_at_its_bound_loses_a_server_of_its_own_and_nobody_elses() -> None:
    slots = Slots(Bounds(max_per_principal=1))
    mine = left_running(slots, "t", now=1, principal="me")
    left_running(slots, "t", now=0, principal="you")
    assert ask(slots, key("next", principal="me"), now=2).evicted == (mine,)


def test_a_principal_at_its_bound_gives_up_one_of_its_own() -> None:
    slots = Slots(Bounds(max_per_principal=1))
    mine, others = ask(slots, key(principal="me")), ask(slots, key(principal="you"))
    for asked in (mine, others):
        made(slots, asked)
        release(slots, asked, 1)
    assert ask(slots, key("next", principal="me"), now=2).evicted == (mine.slot,)


def test_the_persons_own_tasks_have_a_bound_of_their_own() -> None:
    slots = Slots(Bounds(max_per_principal=1, max_local=3))
    for principal, most in (("local", 3), ("ann", 1)):
        for number in range(most):
            assert ask(slots, key(f"{number}", principal=principal)).create
        assert not ask(slots, key("one more", principal=principal)).create


def test_without_a_word_of_the_operator_the_person_may_use_every_place() -> None:
    assert PoolSettings().max_local == PoolSettings().max_sandboxes
    assert PoolSettings(max_sandboxes=8).max_local == 8
    assert PoolSettings(max_per_principal=4).max_local == 4


def test_a_freed_place_goes_to_the_principal_that_holds_the_fewest_and_then_to_who_came_first() -> None:
    slots = Slots(Bounds(max_sandboxes=2))
    held = [ask(slots, key(f"old-{number}", principal="greedy")) for number in range(2)]
    for asked in held:
        made(slots, asked)
    waiting = [
        slots.lease(key(name, principal=name.split("-")[0]), AUTHORIZED) for name in ("greedy-1", "poor-1", "poor-2")
    ]
    assert slots.assign(1) == []
    assert [step.slot.task.task for step in slots.withdraw(held[0].lease, 2)] == ["poor-1"]
    assert [step.slot.task.task for step in slots.withdraw(held[1].lease, 3)] == ["greedy-1"]
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
    assert sum(step.create for step in slots.assign(0)) == 50
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
    (step,) = slots.next_warm(0)
    taken = ask(slots, key("second"))
    assert (taken.slot, taken.create, taken.check) == (step.slot, False, False)


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
