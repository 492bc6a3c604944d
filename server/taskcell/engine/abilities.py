"""What only some engines can."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from anyio.abc import ByteStream

from taskcell.engine.base import Container


class MarksOwners(Protocol):
    """An engine whose containers say which server has them; from `own_only` on it ends none of another's."""

    async def own_only(self, instance: str) -> None: ...


class TransfersApart(Protocol):
    """An engine whose containers say `transfers_apart`: `apart` runs a `supervisor transfer` as a container's user."""

    def apart(self, container: Container, words: Sequence[str]) -> AbstractAsyncContextManager[ByteStream]: ...
