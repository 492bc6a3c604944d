"""Build an image from a person's own Dockerfile."""

from __future__ import annotations

from pathlib import Path

import anyio

from taskcell.config.image_reference import full_reference
from taskcell.errors import EngineError
from taskcell.images.default import BUILD_TIMEOUT
from taskcell.images.engine import Announce, ImageEngine
from taskcell.text import shown

#: Bytes of a Dockerfile.
MAX_DOCKERFILE = 1 << 20


async def build_own(
    engine: ImageEngine, dockerfile: Path, reference: str, *, report: Announce, force: bool = False
) -> None:
    """Build a Dockerfile with the folder that it is in; what has not changed comes from the engine's cache.

    Arguments:
        report: takes one line of progress at a time.
        force: build every step anew.

    Raises:
        EngineError: the file cannot be read, the name is not one of an image, the build failed or took too long.
    """
    try:
        full_reference(reference)
        with dockerfile.open("rb") as file:
            raw = file.read(MAX_DOCKERFILE + 1)
        text = raw.decode("utf-8-sig")
    except OSError as error:
        raise EngineError(f"{dockerfile} cannot be read: {error.strerror or error}.") from None
    except UnicodeDecodeError:
        raise EngineError(f"{dockerfile} is not UTF-8 text; name a Dockerfile.") from None
    except ValueError as error:
        raise EngineError(f"{error}.") from None
    if len(raw) > MAX_DOCKERFILE or not text.strip():
        raise EngineError(f"{shown(str(dockerfile))} is empty, or too large for a Dockerfile; name another file.")
    try:
        with anyio.fail_after(BUILD_TIMEOUT):
            await engine.build_image(text, reference, report, dockerfile.parent, cached=not force)
    except TimeoutError:
        raise EngineError(
            f"The image {reference} was not built within {BUILD_TIMEOUT / 60:.0f} minutes; build it with "
            "`docker build`, which has no such bound."
        ) from None
    report(f"Built {reference}.")
