"""Calls under way at other servers of the deployment: what those are told of them, and which of those still live."""

from __future__ import annotations

import json
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

import anyio
import structlog

from taskcell.deployment.base import HANDED_CALLS, Deployment, Peer
from taskcell.errors import SandboxLost

log = structlog.get_logger(__name__)

T = TypeVar("T")

#: The key of a request's `_meta` with the name of a call that is handed on.
CALL = "taskcell/call"
#: The code of JSON-RPC of a server that refuses a request because it ends: it has not run.
SERVER_CLOSES = -32050
#: The words: kill what it runs, or answer now and let that go on.
CANCEL, ANSWER_NOW = "cancel", "answer"
#: Seconds for one word, and between two looks whether the other server lives.
WORD_PATIENCE, LIVES_TURN = 2.0, 1.0
OWNER_ENDED = (
    "The server that had this task has ended during the call. Nothing is run twice: what the call had started may have "
    "ended or go on, and the task's next call finds it (`process` with action 'list')."
)


@dataclass(frozen=True, slots=True)
class PassedCall:
    """One call at another server.

    Arguments:
        token: stands for its caller there.
    """

    peer: Peer
    token: str = field(repr=False)
    name: str = field(default_factory=lambda: uuid.uuid4().hex)

    async def say(self, word: str) -> None:
        """Tell the other server what becomes of the call. One that cannot be told finds that it has gone."""
        body = json.dumps({"call": self.name, "then": word}).encode()
        if await self.peer.asked(HANDED_CALLS, self.token, body, WORD_PATIENCE) != 204:
            log.info("A server was not told of a call that it has.", server=self.peer.instance, word=word)


async def until_dead(deployment: Deployment, peer: Peer) -> None:
    """Wait until another server does not answer any more what it was asked."""
    while deployment.lives(peer.instance):  # noqa: ASYNC110 - seen by looks at Leases
        await anyio.sleep(LIVES_TURN)


class PassedOn:
    """The calls of this server's clients that other servers serve."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._calls: set[PassedCall] = set()

    async def answer_all(self) -> None:
        """Have every one answered now; what they run goes on."""
        async with anyio.create_task_group() as words:
            for call in list(self._calls):
                words.start_soon(call.say, ANSWER_NOW)

    async def during(self, call: PassedCall, work: Callable[[], Awaitable[T]]) -> T:
        """Wait for a call. One that is cancelled here is killed there; a connection that only breaks kills nothing.

        Raises SandboxLost: the other server does not live any more. And what `work` raises.
        """
        found: list[T] = []
        failure: Exception | None = None
        self._calls.add(call)
        try:
            async with anyio.create_task_group() as beside:
                with anyio.CancelScope(shield=True) as inner:
                    beside.start_soon(self._until_dead, call, inner)
                    beside.start_soon(self._until_cancelled, call, inner)
                    try:
                        found.append(await work())
                    except Exception as error:  # raised below: the task group would wrap it
                        failure = error
                self._calls.discard(call)
                beside.cancel_scope.cancel()
        finally:
            self._calls.discard(call)
        if failure is not None:
            raise failure
        if not found:
            raise SandboxLost(OWNER_ENDED)
        return found[0]

    async def _until_dead(self, call: PassedCall, inner: anyio.CancelScope) -> None:
        await until_dead(self._deployment, call.peer)
        inner.cancel()

    async def _until_cancelled(self, call: PassedCall, inner: anyio.CancelScope) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            if call in self._calls:
                with anyio.CancelScope(shield=True):
                    await call.say(CANCEL)
                inner.cancel()
