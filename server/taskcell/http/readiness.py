"""Whether a server can serve calls now: its engine answers."""

from __future__ import annotations

import time
from collections.abc import Callable

import anyio
import structlog

from taskcell.engine.base import Engine
from taskcell.errors import TaskcellError

log = structlog.get_logger(__name__)

#: Seconds for the engine's answer; load balancers wait for one or a few.
READY_TIMEOUT = 3.0
#: Seconds that an answer holds: who asks is not signed in, and must not be able to keep the engine busy.
KEPT = 2.0


class Readiness:
    """Asks the engine, at most once in KEPT seconds.

    Arguments:
        deployment: whose containers are asked for.
        has_joined: whether the deployment's other servers can hand calls on to this one.
    """

    def __init__(self, engine: Engine, deployment: str, has_joined: Callable[[], bool] = lambda: True) -> None:
        self._engine = engine
        self._deployment = deployment
        self._has_joined = has_joined
        self._asking = anyio.Lock()
        self._asked = float("-inf")
        self._answers = self._is_closing = False

    def close(self) -> None:
        """The server ends: no further client is to come."""
        self._is_closing = True

    async def is_ready(self) -> bool:
        """Whether the engine answers, and the server does not end. What is wrong is in the log alone."""
        if self._is_closing or not self._has_joined():
            return False
        async with self._asking:
            if time.monotonic() - self._asked > KEPT:
                self._answers = await self._ask()
                self._asked = time.monotonic()
            return self._answers

    async def _ask(self) -> bool:
        reason = f"it does not answer within {READY_TIMEOUT:g} s"
        with anyio.move_on_after(READY_TIMEOUT):
            try:
                await self._engine.containers(self._deployment)
            except TaskcellError as error:
                reason = str(error)
            else:
                return True
        log.warning("The server is not ready: the engine cannot be used.", reason=reason)
        return False
