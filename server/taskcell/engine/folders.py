"""What an engine can do with folders of the image that are a task's own, where its profiles may have some (`own`)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO, Protocol

from taskcell.engine.base import Container


class CopiesFolders(Protocol):
    """An engine that reads and writes any folder of a container. Both raise what the methods of `Engine` raise."""

    async def save_folder(self, container: Container, folder: str, file: BinaryIO, most: int) -> None:
        """Write what is in a folder as a tar archive. EngineError: that has more than `most` bytes."""

    async def put_folder(self, container: Container, folder: str, archive: Iterator[bytes]) -> None:
        """Unpack a tar archive into a folder."""
