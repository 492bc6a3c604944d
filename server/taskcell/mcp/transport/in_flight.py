"""What is in flight between one client and the server, in bytes: requests that run, and answers not yet taken.

A request runs only when its lane has room for its answer, so a client that does not read costs a bounded amount of
memory: its next requests wait before their answers are made. Those of tasks without a sandbox, which may wait for one,
take half of a lane at most: the commands of tasks that have one always find room in the other half. There is no I/O
here. The reader asks which request may run next, and the writer reports what the client has taken.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import anyio
from mcp.shared.dispatcher import coerce_request_id
from mcp_types import JSONRPCRequest, RequestId

from taskcell.model import MIB

#: Bytes of requests that wait for room and of messages that need none, beyond which nothing more is read from the
#: client. As large as the largest message.
READ_AHEAD = 16 * MIB
#: Bytes that a request takes beside its line: its models while it waits, its task and scopes too while it runs.
OVERHEAD = 16 << 10


class Kind(NamedTuple):
    """Requests that share a lane.

    Arguments:
        lane: its name.
        limit: bytes that may be in flight in the lane.
        size: bytes of the largest answer that is usual.
        task: the task that needs a sandbox for it; None: no task does.
    """

    lane: str
    limit: int
    size: int
    task: str | None = None


#: The kind of a request; None for one whose answer is a few bytes: it runs at once.
KindOf = Callable[[JSONRPCRequest], Kind | None]
#: The client's tasks that have a sandbox now, or are being given one.
Holders = Callable[[], Collection[str]]


@dataclass(eq=False, slots=True)
class Lane:
    """Requests of one kind; those of another kind never wait for them.

    Arguments:
        limit: bytes; None where nothing waits.
        used: bytes that running requests have reserved, and that answers hold which the client has not taken.
        waiting: requests for which there is no room yet, in the order in which they came.
    """

    limit: int | None
    used: int = 0
    waiting: deque[Claim] = field(default_factory=deque)

    def has_room(self, size: int) -> bool:
        """A request that is larger than the whole lane runs alone."""
        return self.limit is None or not self.used or self.used + size <= self.limit


@dataclass(eq=False, slots=True)
class Claim:
    """The bytes of one message and of the answer to it.

    Arguments:
        size: bytes that it takes in its lane, once it runs.
        request: None for a message of the server's own.
        waits: bytes that it takes while it waits for room; 0 once it runs.
        task: as of its kind.
    """

    lane: Lane
    size: int
    request: JSONRPCRequest | None = None
    waits: int = 0
    task: str | None = None

    def is_without(self, holders: Collection[str]) -> bool:
        """Its task has no sandbox, so that it may wait for one."""
        return self.task is not None and self.task not in holders


class InFlight:
    """All requests of one client that have not ended, and the bytes of every message that it has not taken.

    Arguments:
        kind_of: the kind of a request.
        holders: asked only where half of a lane is in use.
        read_ahead: bytes outside of the lanes, beyond which `is_full`.
    """

    def __init__(self, kind_of: KindOf, holders: Holders, read_ahead: int = READ_AHEAD) -> None:
        self._kind_of = kind_of
        self._holders = holders
        self._read_ahead = read_ahead
        self._small = Lane(None)
        self._lanes: dict[str, Lane] = {}
        self._claims: dict[RequestId, Claim] = {}
        self._awaited: set[RequestId] = set()
        self._waiting = 0
        self._changed = anyio.Event()

    # --- requests ------------------------------------------------------------------------------------------------

    def knows(self, identity: RequestId | None) -> bool:
        """Whether a request of this id waits or runs. `"7"` and 7 are one id, as they are for the SDK."""
        return identity is not None and coerce_request_id(identity) in self._claims

    def arrive(self, request: JSONRPCRequest, line: int) -> None:
        """Take a request of `line` bytes, whose id must not be in use; `ready` gives it back when it may run."""
        kind = self._kind_of(request)
        own = line + OVERHEAD
        if kind is None:
            claim = Claim(self._small, own, request, own)
        else:
            lane = self._lanes.setdefault(kind.lane, Lane(kind.limit))
            claim = Claim(lane, own + kind.size, request, own, kind.task)
        key = coerce_request_id(request.id)
        self._claims[key] = claim
        self._awaited.add(key)
        claim.lane.waiting.append(claim)
        self._waiting += claim.waits

    def ready(self) -> Claim | None:
        """The next request for which there is room; from now on it runs."""
        for lane in self._all():
            claim = self._first(lane)
            if claim is not None and lane.has_room(claim.size):
                lane.waiting.remove(claim)
                lane.used += claim.size
                self._waiting -= claim.waits
                claim.waits = 0
                return claim
        return None

    def _first(self, lane: Lane) -> Claim | None:
        """The request whose turn it is: the first to come, but for those of tasks without a sandbox while such ones
        have their half of the lane. They wait for each other, so that a large one has its turn, too."""
        if not lane.waiting or lane.limit is None or lane.used + lane.waiting[0].size <= lane.limit // 2:
            return next(iter(lane.waiting), None)
        holders = self._holders()
        running = (claim for claim in self._claims.values() if claim.lane is lane and not claim.waits)
        taken = sum(claim.size for claim in running if claim.is_without(holders))
        for claim in lane.waiting:
            if not claim.is_without(holders) or not taken or taken + claim.size <= lane.limit // 2:
                return claim
            taken = lane.limit
        return None

    def cancel(self, identity: RequestId) -> None:
        """The client wants no answer any more. A request that waits for room is dropped; one that runs goes on."""
        key = coerce_request_id(identity)
        self._awaited.discard(key)
        claim = self._claims.get(key)
        if claim is not None and claim.waits:
            claim.lane.waiting.remove(claim)
            self._waiting -= claim.waits
            del self._claims[key]
        self._change()

    def end(self, claim: Claim) -> None:
        """A request that ran has ended without an answer."""
        if self._settle(claim):
            self.release(claim)

    # --- messages to the client ----------------------------------------------------------------------------------

    def answer(self, identity: RequestId | None, size: int) -> Claim | None:
        """The answer of `size` bytes to a request that runs; it counts in its lane until `release`. None: no such."""
        claim = None if identity is None else self._claims.get(coerce_request_id(identity))
        if claim is None or not self._settle(claim):
            return None
        claim.lane.used += size - claim.size
        claim.size = size
        self._change()
        return claim

    def message(self, size: int) -> Claim:
        """A message of `size` bytes that answers no request; it counts until `release`."""
        self._small.used += size
        return Claim(self._small, size)

    def release(self, claim: Claim) -> None:
        """The client has taken the message, or will not get it any more."""
        claim.lane.used -= claim.size
        claim.size = 0
        self._change()

    def _settle(self, claim: Claim) -> bool:
        """Whether the claim's request had not ended yet; it has now."""
        request = claim.request
        if request is None or self._claims.get(key := coerce_request_id(request.id)) is not claim:
            return False
        del self._claims[key]
        self._awaited.discard(key)
        return True

    # --- as a whole ----------------------------------------------------------------------------------------------

    @property
    def size(self) -> int:
        """All bytes in flight."""
        return self._waiting + sum(lane.used for lane in self._all())

    @property
    def is_full(self) -> bool:
        """Nothing more may be read from the client."""
        return self._waiting + self._small.used > self._read_ahead

    @property
    def has_waiting(self) -> bool:
        """Some request waits for room."""
        return any(lane.waiting for lane in self._all())

    @property
    def is_awaited(self) -> bool:
        """The client waits for an answer to some request."""
        return bool(self._awaited)

    async def changed(self) -> None:
        """Wait until bytes were released, or a request has ended."""
        await self._changed.wait()

    def _change(self) -> None:
        changed, self._changed = self._changed, anyio.Event()
        changed.set()

    def _all(self) -> Iterator[Lane]:
        yield self._small
        yield from self._lanes.values()
