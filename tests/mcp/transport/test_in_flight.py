"""What may run and what waits, decided in bytes: nothing here does any I/O."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from mcp_types import JSONRPCRequest

from taskcell.mcp.transport.answer_sizes import CALLS_AT_ONCE, FILE_ANSWER, LANE_LIMIT, kinds
from taskcell.mcp.transport.in_flight import OVERHEAD, Claim, InFlight, Kind

LINE = 100
SIZE = 10_000
LIMIT = 3 * (SIZE + LINE + OVERHEAD)
TASKS = st.sampled_from(["a", "b", "c"])


def kind_of(request: JSONRPCRequest) -> Kind | None:
    task = (request.params or {}).get("task")
    return None if request.method == "ping" else Kind(request.method, LIMIT, SIZE, task)


def request(identity: int | str, method: str = "file", task: str | None = None) -> JSONRPCRequest:
    return JSONRPCRequest(jsonrpc="2.0", id=identity, method=method, params={"task": task} if task else None)


def started(in_flight: InFlight) -> list[Claim]:
    """All that may run now."""
    claims = []
    while (claim := in_flight.ready()) is not None:
        claims.append(claim)
    return claims


def ids(claims: list[Claim]) -> list[int | str]:
    return [claim.request.id for claim in claims if claim.request is not None]


@pytest.fixture
def in_flight() -> InFlight:
    return InFlight(kind_of, tuple)


def test_a_request_waits_until_the_client_has_taken_an_earlier_answer(in_flight: InFlight) -> None:
    for number in range(5):
        in_flight.arrive(request(number), LINE)
    assert ids(started(in_flight)) == [0, 1, 2]
    answer = in_flight.answer(1, SIZE + LINE + OVERHEAD)
    assert answer is not None
    assert not started(in_flight)
    in_flight.release(answer)
    assert ids(started(in_flight)) == [3]


def test_an_answer_that_is_smaller_than_was_reserved_makes_room_at_once(in_flight: InFlight) -> None:
    for number in range(5):
        in_flight.arrive(request(number), LINE)
    started(in_flight)
    in_flight.answer(0, 0)
    assert ids(started(in_flight)) == [3]


def test_an_answer_that_is_larger_than_was_reserved_holds_back_those_that_follow(in_flight: InFlight) -> None:
    in_flight.arrive(request(0), LINE)
    started(in_flight)
    answer = in_flight.answer(0, 2 * LIMIT)
    assert answer is not None
    in_flight.arrive(request(1), LINE)
    assert not started(in_flight)
    in_flight.release(answer)
    assert ids(started(in_flight)) == [1]


def test_a_request_that_is_larger_than_its_lane_runs_alone(in_flight: InFlight) -> None:
    in_flight.arrive(request("large"), 2 * LIMIT)
    in_flight.arrive(request("small"), LINE)
    (claim,) = started(in_flight)
    assert ids([claim]) == ["large"]
    in_flight.end(claim)
    assert ids(started(in_flight)) == ["small"]


def test_a_full_lane_holds_up_no_other_and_small_requests_wait_for_nothing(in_flight: InFlight) -> None:
    for number in range(4):
        in_flight.arrive(request(number), LINE)
    in_flight.arrive(request("call", "call"), LINE)
    in_flight.arrive(request("ping", "ping"), LINE)
    assert sorted(map(str, ids(started(in_flight)))) == ["0", "1", "2", "call", "ping"]


def test_a_cancelled_request_that_waits_never_runs_and_one_that_runs_holds_its_bytes_to_its_end(
    in_flight: InFlight,
) -> None:
    for number in range(5):
        in_flight.arrive(request(number), LINE)
    first, *_ = started(in_flight)
    in_flight.cancel(3)
    in_flight.cancel(0)
    assert not started(in_flight)
    assert in_flight.knows(0)
    assert not in_flight.knows(3)
    in_flight.end(first)
    assert not in_flight.knows(0)
    assert ids(started(in_flight)) == [4]


def test_an_end_after_the_answer_changes_nothing(in_flight: InFlight) -> None:
    in_flight.arrive(request(0), LINE)
    (claim,) = started(in_flight)
    in_flight.answer(0, SIZE)
    in_flight.arrive(request(0), LINE)
    in_flight.end(claim)
    assert in_flight.knows(0)
    assert in_flight.size == SIZE + LINE + OVERHEAD


def test_nothing_more_is_read_when_too_much_waits_or_stands_unread() -> None:
    in_flight = InFlight(kind_of, tuple, read_ahead=4 * OVERHEAD)
    for number in range(6):
        in_flight.arrive(request(number), LINE)
    assert in_flight.is_full
    started(in_flight)
    assert not in_flight.is_full
    unread = in_flight.message(4 * OVERHEAD)
    assert in_flight.is_full
    in_flight.release(unread)
    assert not in_flight.is_full


@pytest.mark.parametrize("output_chars", [200, 50_000, 100_000_000])
def test_files_and_calls_have_lanes_of_their_own_with_room_for_several(output_chars: int) -> None:
    of = kinds(output_chars)
    picture = JSONRPCRequest(jsonrpc="2.0", id=1, method="tools/call", params={"name": "read_file"})
    call = JSONRPCRequest(jsonrpc="2.0", id=1, method="tools/call", params={"name": "terminal"})
    assert of(request(1, "resources/read")) == Kind("files", LANE_LIMIT, FILE_ANSWER)
    assert of(picture) == Kind("files", LANE_LIMIT, FILE_ANSWER, "default")
    calls = of(call)
    assert calls is not None
    assert calls.lane == "calls"
    assert calls.limit >= CALLS_AT_ONCE * calls.size
    assert LANE_LIMIT >= 4 * FILE_ANSWER
    assert of(request(1, "ping")) is None


@pytest.mark.parametrize(
    ("arguments", "task"),
    [
        (None, "default"),
        ({}, "default"),
        ({"task_id": None}, "default"),
        ({"task_id": "a"}, "a"),
        ({"task_id": 7}, None),
    ],
)
def test_a_calls_task_is_known_before_its_arguments_are_checked(arguments: object, task: str | None) -> None:
    call = JSONRPCRequest(jsonrpc="2.0", id=1, method="tools/call", params={"name": "x", "arguments": arguments})
    kind = kinds(50_000)(call)
    assert kind is not None
    assert kind.task == task


def test_tasks_without_a_sandbox_take_half_of_a_lane_and_those_with_one_pass_them() -> None:
    holders: set[str] = set()
    in_flight = InFlight(lambda asked: kind_of(asked)._replace(limit=2 * LIMIT), lambda: holders)  # type: ignore[union-attr]
    for number in range(6):
        in_flight.arrive(request(number, task=f"new {number}"), LINE)
    waiting = started(in_flight)
    assert ids(waiting) == [0, 1, 2]
    holders.add("old")
    in_flight.arrive(request("of no task"), LINE)
    for number in range(6, 9):
        in_flight.arrive(request(number, task="old"), LINE)
    running = started(in_flight)
    assert ids(running) == ["of no task", 6, 7]
    in_flight.end(running[1])
    assert ids(started(in_flight)) == [8]
    in_flight.cancel(3)
    in_flight.end(waiting[0])
    assert ids(started(in_flight)) == [4]


def test_a_task_that_was_given_a_sandbox_leaves_its_share_to_the_next_and_a_large_request_has_its_turn() -> None:
    holders: set[str] = set()
    in_flight = InFlight(kind_of, lambda: holders)
    in_flight.arrive(request(0, task="first"), LINE)
    in_flight.arrive(request(1, task="large"), LIMIT // 2)
    in_flight.arrive(request(2, task="small"), LINE)
    (first,) = started(in_flight)
    holders.add("first")
    assert not started(in_flight), "there is no room for the large one, and no other passes it"
    in_flight.end(first)
    (large,) = started(in_flight)
    assert ids([large]) == [1]
    holders.add("large")
    in_flight.end(large)
    assert ids(started(in_flight)) == [2]


class Client(RuleBasedStateMachine):
    """A client that asks, cancels and reads in any order: bytes are neither lost nor forgotten, and all are served."""

    def __init__(self) -> None:
        super().__init__()
        self.holders: set[str] = set()
        self.in_flight = InFlight(kind_of, lambda: self.holders, read_ahead=1 << 30)
        self.running: list[Claim] = []
        self.unread: list[Claim] = []
        self.numbers = iter(range(10_000))

    @rule(method=st.sampled_from(["file", "call", "ping"]), line=st.integers(1, 2 * LIMIT), task=TASKS)
    def ask(self, method: str, line: int, task: str | None) -> None:
        self.in_flight.arrive(request(next(self.numbers), method, task), line)

    @rule(task=TASKS)
    def come_and_go(self, task: str) -> None:
        self.holders ^= {task}

    @rule()
    def run(self) -> None:
        self.running += started(self.in_flight)

    @rule(identity=st.integers(0, 50))
    def cancel(self, identity: int) -> None:
        self.in_flight.cancel(identity)

    @precondition(lambda self: self.running)
    @rule(data=st.data(), size=st.integers(0, 2 * SIZE))
    def answer(self, data: st.DataObject, size: int) -> None:
        claim = self.running.pop(data.draw(st.integers(0, len(self.running) - 1)))
        assert claim.request is not None
        answer = self.in_flight.answer(claim.request.id, size)
        assert answer is claim
        self.unread.append(answer)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        self.in_flight.end(self.running.pop(data.draw(st.integers(0, len(self.running) - 1))))

    @rule(size=st.integers(0, SIZE))
    def tell(self, size: int) -> None:
        self.unread.append(self.in_flight.message(size))

    @precondition(lambda self: self.unread)
    @rule()
    def read(self) -> None:
        self.in_flight.release(self.unread.pop(0))

    @invariant()
    def the_running_fit_in_their_lanes(self) -> None:
        for lane in ("file", "call"):
            sizes = [claim.size for claim in self.running if claim.request and claim.request.method == lane]
            assert sum(sizes) <= LIMIT or len(sizes) == 1

    def teardown(self) -> None:
        while self.running or self.unread or self.in_flight.has_waiting:
            for claim in self.running:
                self.in_flight.end(claim)
            for claim in self.unread:
                self.in_flight.release(claim)
            self.running, self.unread = started(self.in_flight), []
        assert self.in_flight.size == 0
        assert not self.in_flight.has_waiting
        assert not self.in_flight.is_awaited


Client.TestCase.settings = settings(max_examples=50, stateful_step_count=30, deadline=None)
TestClient = Client.TestCase
