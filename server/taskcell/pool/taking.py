"""Gives a sandbox that was made for no task to the task that takes it."""

from __future__ import annotations

import secrets
from contextlib import suppress

import anyio
import structlog

from taskcell.engine.base import Container, Engine
from taskcell.errors import TaskcellError
from taskcell.pool.slot import Slot

log = structlog.get_logger(__name__)

#: Seconds that a warm sandbox has to prove that it is in order; making another one takes less.
CHECK_TIMEOUT = 0.5
#: The same where a cluster's API says whose it is: a new pod takes seconds there, and a busy cluster is not to make it.
TAKE_TIMEOUT = 5.0
#: Seconds to leave the engine to the first call of the task that has taken a warm sandbox.
ASSIGN_DELAY = 0.2
_WARM = "taskcell-warm-"


class Taking:
    """Checks ready sandboxes, and gives their containers the names of their tasks'."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def is_in_order(self, slot: Slot) -> bool:
        """Whether a warm sandbox may be given to a task: it answers, and its image still has its name.

        One that other servers may want is this task's from then on, or another one's.
        """
        sandbox = slot.sandbox
        assert sandbox is not None
        image, is_ours = "", False

        async def look() -> None:
            nonlocal image
            with suppress(TaskcellError):
                image = await self._engine.image_id(slot.profile)

        async def take() -> None:
            nonlocal is_ours
            try:
                sandbox.container = await assigned(self._engine, sandbox.container, slot)
                is_ours = True
            except TaskcellError as error:
                log.warning("A ready sandbox is not used.", name=sandbox.container.name, reason=str(error))

        with anyio.move_on_after(TAKE_TIMEOUT if sandbox.container.is_contended else CHECK_TIMEOUT):
            async with anyio.create_task_group() as looking:
                looking.start_soon(look)
                looking.start_soon(take)
                with suppress(TaskcellError):
                    await sandbox.channel.ping()
            return sandbox.usable and is_ours and image == sandbox.container.image_id
        return False

    async def name(self, slot: Slot) -> None:
        """Give a container that nobody else can want its task's name, if it has none, after the task's first call."""
        sandbox = slot.sandbox
        if sandbox is None or not sandbox.container.name.startswith(_WARM):
            return
        await anyio.sleep(ASSIGN_DELAY)
        try:
            sandbox.container = await self._engine.assign(sandbox.container, container_name(slot))
        except TaskcellError as error:
            log.info("a sandbox keeps its first name", name=sandbox.container.name, reason=str(error))


async def assigned(engine: Engine, container: Container, slot: Slot) -> Container:
    """A slot's container, which is its task's from now on where other servers may want it. Raises TaskcellError."""
    is_open = container.is_contended and not slot.is_warm and container.name.startswith(_WARM)
    return await engine.assign(container, container_name(slot)) if is_open else container


def container_name(slot: Slot) -> str:
    """A name that is never used twice, and that holds nothing a client chose."""
    owner = "warm" if slot.is_warm else slot.task.digest[:8]
    return f"taskcell-{owner}-{slot.profile.name}-{secrets.token_hex(4)}"
