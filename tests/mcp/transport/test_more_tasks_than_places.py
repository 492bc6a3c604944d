"""Hundreds of tasks at once through one pipe, by the decisions of the pipe and of the pool alone, with a clock of its
own: each is opened and then runs a command, and has its sandbox from the one to the other."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterable

import pytest
from mcp_types import JSONRPCRequest

from pool_slots import AUTHORIZED, key, sandbox
from taskcell.mcp.transport.answer_sizes import kinds
from taskcell.mcp.transport.in_flight import Claim, InFlight
from taskcell.model import LOCAL_PRINCIPAL
from taskcell.pool.bounds import Bounds
from taskcell.pool.reserved import RESERVED
from taskcell.pool.slot import Lease, Slot, Step, placed
from taskcell.pool.state import Slots

TASKS, PLACES = 500, 64
#: Seconds for a sandbox of two that are made at once, as on a machine with two cores; bytes of a line, and of an
#: answer.
CREATION, AT_ONCE = 0.3, 2
LINE, ANSWER = 200, 500


class Server:
    """The pipe and the pool, and what happens when; a client that knows each answer at once."""

    def __init__(self, command: float, output_chars: int) -> None:
        self.command = command
        self.slots = Slots(Bounds(max_sandboxes=PLACES, max_local=PLACES))
        self.in_flight = InFlight(kinds(output_chars), lambda: placed(self.slots, LOCAL_PRINCIPAL))
        self.now, self.made, self.answers = 0.0, 0, 0
        self._numbers, self._events = itertools.count(), list[tuple[float, int, Callable[[], None]]]()
        self._creating = [0.0] * AT_ONCE
        self._waiting: list[tuple[Lease, Claim, str]] = []

    def run(self) -> None:
        for number in range(TASKS):
            self._send("sandbox", f"task {number}")
        self._start()
        while self._events:
            self.now, _, happen = heapq.heappop(self._events)
            happen()
            self._begin_granted()
            self._start()

    def _send(self, tool: str, task: str) -> None:
        params = {"name": tool, "arguments": {"task_id": task}}
        message = JSONRPCRequest(jsonrpc="2.0", id=next(self._numbers), method="tools/call", params=params)
        self.in_flight.arrive(message, LINE)

    def _start(self) -> None:
        while (claim := self.in_flight.ready()) is not None:
            assert claim.request is not None
            assert claim.request.params is not None
            lease = self.slots.lease(key(claim.request.params["arguments"]["task_id"]), AUTHORIZED)
            self._waiting.append((lease, claim, claim.request.params["name"]))
            if lease.slot is None:
                self._follow(self.slots.assign(self.now))
        self._begin_granted()

    def _follow(self, steps: Iterable[Step]) -> None:
        for step in steps:
            assert step.create
            self.made += 1
            free = heapq.heappop(self._creating)
            done = max(self.now, free) + CREATION
            heapq.heappush(self._creating, done)
            self._at(done, lambda slot=step.slot: self.slots.ready(slot, sandbox(AUTHORIZED)))

    def _begin_granted(self) -> None:
        granted = [one for one in self._waiting if one[0].slot is not None and one[0].slot.settled.is_set()]
        self._waiting = [one for one in self._waiting if one not in granted]
        for lease, claim, tool in granted:
            assert lease.slot is not None
            lease.slot.reservation.close()
            self._at(self.now + (self.command if tool == "terminal" else 0), lambda of=(lease, claim): self._end(*of))

    def _end(self, lease: Lease, claim: Claim) -> None:
        """A call has ended: what it leaves is answered, and the client goes on when others have taken the room."""
        assert claim.request is not None
        assert claim.request.params is not None
        assert lease.slot is not None
        opened = claim.request.params["name"] == "sandbox"
        if opened and self.slots.waiting:
            self._reserve(lease.slot)
        self._follow(self.slots.withdraw(lease, self.now))
        answer = self.in_flight.answer(claim.request.id, ANSWER)
        assert answer is not None
        self.in_flight.release(answer)
        self._start()
        if opened:
            self._send("terminal", claim.request.params["arguments"]["task_id"])
        else:
            self.answers += 1

    def _reserve(self, slot: Slot) -> None:
        lease = self.slots.hold(slot)
        slot.reservation.callback(lambda: self._follow(self.slots.withdraw(lease, self.now)))
        self._at(self.now + RESERVED, slot.reservation.close)

    def _at(self, when: float, happen: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when, next(self._numbers), happen))


@pytest.mark.parametrize(("command", "output_chars"), [(0.0, 50_000), (600.0, 50_000), (600.0, 200)])
def test_each_of_five_hundred_tasks_with_sixty_four_places_costs_one_sandbox(command: float, output_chars: int) -> None:
    """With answers of 200 characters all requests are in flight at once, as those of other doors always are."""
    server = Server(command, output_chars)
    server.run()
    assert server.answers == TASKS
    assert server.made == TASKS
    assert server.in_flight.size == 0
    assert not server.slots.waiting
