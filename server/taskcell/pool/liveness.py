"""Notices sandboxes whose supervisor is not heard any more, and replaces those that still hold a task's files."""

from __future__ import annotations

import time
from contextlib import suppress

import anyio
import anyio.abc
import structlog

from taskcell.engine.base import Engine, Standing
from taskcell.errors import EngineUnavailable, SandboxLost, TaskcellError
from taskcell.pool.executor import Executor
from taskcell.pool.slot import Slot, SlotState
from taskcell.pool.state import Slots
from taskcell.sandbox.sandbox import Sandbox

log = structlog.get_logger(__name__)

#: Seconds of silence after which the supervisor of a sandbox in use is pinged. With the pool's tick and the two looks,
#: a stopped one is found out within five seconds; a ping costs a millisecond.
PING_AFTER = 1.5
#: Seconds without an answer after which the engine is asked whether a signal has stopped the supervisor or its channel.
#: Silence alone proves nothing: on a busy machine an answer can take this long.
LOOK_AFTER = 1.0
#: Seconds between the two looks that must agree: a debugger or a checkpoint stops a process for a moment too.
SECOND_LOOK = 0.3
#: Seconds without an answer after which another stream to the supervisor is opened. It runs before everything that it
#: started, so that only a paused container, a hanging engine or a dead connection takes longer.
PING_TIMEOUT = 5.0
#: Seconds from the end of a channel to the look whether its container has ended too: the engine needs a moment to tell.
END_DELAY = 0.5

_AWAY = (
    "The engine does not answer, so the task's sandbox cannot be reached now. Nothing was run; what is in the sandbox "
    "stays there. Call again when the engine answers."
)
_STOPPED = "its supervisor, or its channel's process, was stopped by a signal"


async def is_reachable(slot: Slot) -> bool:
    """Wait until a sandbox has its channel again, or False: it has been lost, before anything was asked of it.

    Raises EngineUnavailable: it is away, and may be back.
    """
    assert slot.sandbox is not None
    channel = slot.sandbox.channel
    if not channel.is_away:
        return True
    await channel.back(or_lost=False)
    if channel.is_away:
        raise EngineUnavailable(_AWAY)
    return channel.alive


class Liveness:
    """Looks at every sandbox at each tick of the upkeep."""

    def __init__(self, engine: Engine, instance: str, slots: Slots, executor: Executor) -> None:
        self._engine = engine
        self._instance = instance
        self._slots = slots
        self._executor = executor
        self._lost: set[Slot] = set()
        self._asked: set[str] = set()

    def look(self, asking: anyio.abc.TaskGroup, now: float) -> None:
        """Begin to ask about each sandbox that is silent, or lost since the last look.

        Arguments:
            asking: runs what waits for an answer.
            now: monotonic seconds.
        """
        slots = list(self._slots)
        self._lost &= set(slots)
        for slot in slots:
            if slot.sandbox is None or slot.state is not SlotState.READY:
                continue
            channel = slot.sandbox.channel
            if slot.leases and slot.sandbox.usable and not channel.is_away and now - channel.heard > PING_AFTER:
                asking.start_soon(self._ask, slot.sandbox)
            elif not (slot.is_warm or channel.alive or slot in self._lost):
                self._lost.add(slot)
                asking.start_soon(self._replace, slot, slot.sandbox)

    async def follow(self, asking: anyio.abc.TaskGroup) -> None:
        """Hear from the engine which containers have ended: the stream to one whose node is cut off does not end."""

        def heard(container_id: str) -> None:
            for slot in self._slots:
                if slot.sandbox is not None and slot.sandbox.container.id == container_id:
                    asking.start_soon(self._end, slot.sandbox)

        try:
            await self._engine.follow(self._instance, heard)
        except Exception:  # whatever it is: what the streams say is enough
            log.exception("The engine does not say any more which sandboxes have ended.")

    async def _end(self, sandbox: Sandbox) -> None:
        """Have the stream to a sandbox opened again if its container has ended, which it then finds out."""
        await anyio.sleep(END_DELAY)
        if sandbox.channel.is_away or not sandbox.channel.alive:
            return
        with suppress(TaskcellError):
            # Another server may have taken it: that looks like an end, and another stream would take it back.
            if await self._engine.standing(sandbox.container) is Standing.ENDED:
                sandbox.channel.renew()

    # --- the silent ----------------------------------------------------------------------------------------------

    async def _ask(self, sandbox: Sandbox) -> None:
        """Ping a supervisor: without an answer it is lost if a signal has stopped it, and else connected to again."""
        if sandbox.container.id in self._asked:
            return
        self._asked.add(sandbox.container.id)
        try:
            await self._wait_for_answer(sandbox)
        finally:
            self._asked.discard(sandbox.container.id)

    async def _wait_for_answer(self, sandbox: Sandbox) -> None:
        async with anyio.create_task_group() as asking:

            async def ping() -> None:
                with suppress(SandboxLost):
                    await sandbox.channel.ping()
                asking.cancel_scope.cancel()

            asking.start_soon(ping)
            await anyio.sleep(LOOK_AFTER)
            with anyio.move_on_after(PING_TIMEOUT - LOOK_AFTER):  # an engine that hangs does not say either
                if await self._is_stopped(sandbox):
                    sandbox.channel.give_up(_STOPPED)
                    return
                await anyio.sleep_forever()
            sandbox.channel.renew()
            asking.cancel_scope.cancel()

    async def _is_stopped(self, sandbox: Sandbox) -> bool:
        """Whether a signal holds the supervisor, or the process that carries its channel; False if that is unknown."""
        try:
            if await self._engine.standing(sandbox.container) is not Standing.STOPPED:
                return False
            await anyio.sleep(SECOND_LOOK)
            return await self._engine.standing(sandbox.container) is Standing.STOPPED
        except TaskcellError:
            return False

    # --- the lost ------------------------------------------------------------------------------------------------

    async def _replace(self, slot: Slot, sandbox: Sandbox) -> None:
        """Replace a sandbox whose channel has ended, if its container runs on.

        Its supervisor ends after `orphan_ttl`, and files in memory would go with it. A container that has ended, or
        that somebody has removed, is not made again before its task's next call.
        """
        await anyio.sleep(END_DELAY)
        try:
            standing = await self._engine.standing(sandbox.container)
        except TaskcellError:
            return
        if standing is not Standing.ENDED:
            self._executor.begin(self._slots.replace(lambda one: one is slot and not one.usable, time.monotonic()))
