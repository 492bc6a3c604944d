"""Images: inspected, pulled with progress, imported, built."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import structlog
from docker import APIClient
from docker.errors import APIError, ImageNotFound

from taskcell.errors import EngineError, ImageMissing

log = structlog.get_logger(__name__)

#: Images that `taskcell image build` makes on this machine. They are never pulled: a registry's image of the same name
#: would be somebody else's.
LOCAL_PREFIX = "taskcell/"
#: Seconds between two lines of progress in the log.
PROGRESS_EVERY = 2.0


def ensure(client: APIClient, reference: str, platform: str) -> Mapping[str, Any]:
    """Inspect the image; pull it where the engine does not have it. Raises ImageMissing."""
    try:
        return _inspect(client, reference)
    except ImageNotFound:
        if reference.startswith(LOCAL_PREFIX):
            raise ImageMissing(
                f"The image {reference} is not on the engine; build it with `taskcell image build`."
            ) from None
    _pull(client, reference, platform)
    return _inspect(client, reference)


def _inspect(client: APIClient, reference: str) -> Mapping[str, Any]:
    image: Mapping[str, Any] = client.inspect_image(reference)
    return image


def _pull(client: APIClient, reference: str, platform: str) -> None:
    log.info("pulling an image", image=reference)
    told = time.monotonic()
    try:
        for step in client.pull(reference, stream=True, decode=True, platform=platform or None):
            if "error" in step:
                raise ImageMissing(_cannot_pull(reference, step["error"]))
            if time.monotonic() - told > PROGRESS_EVERY:
                told = time.monotonic()
                log.info("pulling", image=reference, layer=step.get("id"), progress=step.get("progress"))
    except APIError as error:
        raise ImageMissing(_cannot_pull(reference, str(error.explanation or error))) from error
    log.info("pulled", image=reference)


def _cannot_pull(reference: str, said: str) -> str:
    why = " ".join(said.split()).rstrip(".")[:300]
    return (
        f"The image {reference} is not on the engine and could not be pulled ({why}). "
        "Check its name, or load it with `docker load` or `docker import`."
    )


def labels(client: APIClient, reference: str) -> Mapping[str, str] | None:
    try:
        return dict(_inspect(client, reference)["Config"].get("Labels") or {})
    except ImageNotFound:
        return None


def import_tar(client: APIClient, tar: Path, reference: str, changes: Sequence[str]) -> None:
    """Make an image from a root file system's tar file. Raises EngineError."""
    repository, _, tag = reference.rpartition(":")
    said = client.import_image(src=str(tar), repository=repository, tag=tag, changes=list(changes))
    if '"errorDetail"' in said:
        raise EngineError(f"The engine could not import the image: {' '.join(said.split())[:300]}.")


def build(client: APIClient, dockerfile: str, reference: str, report: Callable[[str], None]) -> None:
    """Build from a Dockerfile without a context. Raises EngineError with the build's last words."""
    source = io.BytesIO(dockerfile.encode())
    for step in client.build(fileobj=source, tag=reference, rm=True, forcerm=True, decode=True):
        if "error" in step:
            raise EngineError(f"The image {reference} could not be built: {' '.join(step['error'].split())}.")
        line = str(step.get("stream", "")).rstrip()
        if line:
            report(line)
