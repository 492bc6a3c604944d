"""What the builds of images need of an engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

#: Called with a sentence on what the build does next.
Announce = Callable[[str], None]


class ImageEngine(Protocol):
    """What the builds of images need of an engine."""

    async def image_labels(self, reference: str) -> Mapping[str, str] | None:
        """The image's labels; None when the engine does not have it."""

    async def image_architecture(self, reference: str) -> str:
        """The architecture of an image that the engine has, such as `amd64`. Raises EngineError."""

    async def image_output(self, reference: str, script: str) -> str:
        """What a shell script prints in a container of the image, without a network. Raises EngineError."""

    async def why_not_pulled(self, reference: str) -> str:
        """Why the image cannot be pulled, as its registry says; empty if it can. Nothing is pulled."""

    async def pulling(self, reference: str) -> str:
        """How far the pull of an image is, in a sentence; empty while it is not pulled."""

    async def import_image(self, tar: Path, reference: str, changes: Sequence[str]) -> None:
        """Make an image of a root file system's tar; `changes` are Dockerfile instructions. Raises EngineError."""

    async def build_image(
        self, dockerfile: str, reference: str, report: Announce, context: Path | None = None, *, cached: bool = False
    ) -> None:
        """Build a Dockerfile; `context` is a folder of what it copies. Raises EngineError.

        Arguments:
            cached: the engine may use what it has built before.
        """
