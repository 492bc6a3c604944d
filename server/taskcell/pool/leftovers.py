"""Containers that the engine could not start or remove when it was asked to: it is asked to remove them again."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field

import anyio
import structlog

from taskcell.engine.base import Container, Engine
from taskcell.errors import EngineError, EngineUnavailable, TaskcellError

log = structlog.get_logger(__name__)

#: Seconds between two requests. An engine that hangs gets no better by more of them.
ASK_EVERY = 10.0
#: Seconds after a failed start for which its container may still appear: an engine that goes on after a pause works off
#: the requests that it has, and its client gives a request up after one minute.
MAY_APPEAR = 120.0
#: Seconds that a call waits for the removal before its own start; a busy engine takes a few.
LIST_TIMEOUT = 10.0


@dataclass(slots=True)
class Leftover:
    """One container.

    Arguments:
        key: its id; its name if the start gave none.
        image: what it was to be made from, if the engine gave no answer to the start; empty otherwise.
        since: when it was left (monotonic seconds).
        id: the engine's id of it when it was listed last; empty when it was not.
        asked: set at the end of the request to remove it that is under way; None when there is none.
    """

    key: str
    name: str
    image: str = ""
    since: float = field(default_factory=time.monotonic)
    id: str = ""
    asked: anyio.Event | None = None


class Leftovers:
    """Remembers what may be left, until the engine says that it is not.

    Arguments:
        deployment_id: as in the containers' labels.
    """

    def __init__(self, engine: Engine, deployment_id: str) -> None:
        self._engine = engine
        self._deployment_id = deployment_id
        self._left: dict[str, Leftover] = {}
        self._asked = -math.inf
        self._is_asking = False

    @property
    def any(self) -> bool:
        """Something may be left."""
        return bool(self._left)

    @property
    def names(self) -> list[str]:
        """Names of those that the engine has, as far as is known."""
        return sorted(left.name for left in self._left.values() if left.id)

    def is_due(self, now: float) -> bool:
        """Whether the engine is to be asked now (monotonic seconds)."""
        return bool(self._left) and not self._is_asking and now - self._asked >= ASK_EVERY

    def add_removal(self, container: Container, reason: str) -> None:
        """A container could not be removed."""
        log.warning("a container could not be removed; the engine is asked again", name=container.name, reason=reason)
        self._left[container.id] = Leftover(container.id, container.name)

    def add_start(self, name: str, image: str, reason: BaseException) -> None:
        """A start has failed, or was given up, and its container may be there."""
        log.info("the engine is asked to remove what a failed start has left", name=name, reason=str(reason))
        self._left[name] = Leftover(name, name, image if isinstance(reason, EngineUnavailable) else "")

    async def check(self, image: str) -> None:
        """Remove what earlier starts of an image have left, before the next one.

        Raises EngineError while that cannot be done: an engine that hangs on an image takes more harm from each start.
        """
        of_image = [left for left in self._left.values() if image and left.image == image]
        if not of_image:
            return
        with anyio.move_on_after(LIST_TIMEOUT) as bound:
            await self._look()
            await self._remove(of_image)
        if any(left.id for left in of_image):
            raise EngineError(
                f"The engine holds a container of the image {image} that it can neither start nor remove, so no other "
                "is started. The person who runs the server must restart the engine, or look at the image."
            )
        if bound.cancelled_caught:
            raise EngineUnavailable(
                f"The engine did not list its containers within {LIST_TIMEOUT:g} s: it does not answer. The person "
                "who runs the server must restart it, or see `taskcell doctor` on the host."
            )

    async def remove(self) -> None:
        """Ask the engine to remove all of them; a failure is a line in the log."""
        self._asked, self._is_asking = time.monotonic(), True
        try:
            await self._look()
            await self._remove(list(self._left.values()))
        except TaskcellError as error:
            log.info("what may be left on the engine was not removed", reason=str(error))
        finally:
            self._is_asking = False

    async def _look(self) -> None:
        """Find out which of them the engine has. Raises EngineError."""
        before = list(self._left.values())
        now = time.monotonic()
        listed = await self._engine.containers(self._deployment_id)
        ids = {one.name: one.id for one in listed} | {one.id: one.id for one in listed}
        for left in before:
            left.id = ids.get(left.key, "")
            if not left.id and now - left.since > MAY_APPEAR:
                self._left.pop(left.key, None)

    async def _remove(self, chosen: list[Leftover]) -> None:
        async with anyio.create_task_group() as removing:
            for left in chosen:
                if left.id:
                    removing.start_soon(self._remove_one, left)

    async def _remove_one(self, left: Leftover) -> None:
        if left.asked is not None:
            await left.asked.wait()
            return
        asked = left.asked = anyio.Event()
        try:
            await self._engine.stop(left.id)
        except TaskcellError as error:
            log.info("a container is still left on the engine", name=left.name, reason=str(error))
        else:
            left.id = ""
            self._left.pop(left.key, None)
            log.info("a container that was left on the engine is removed", name=left.name)
        finally:
            left.asked = None
            asked.set()
