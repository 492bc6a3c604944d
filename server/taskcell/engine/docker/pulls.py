"""Pulls of images from registries. The functions block."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import structlog
from docker import APIClient
from docker.errors import APIError, DockerException

from taskcell.errors import EngineError, ImageMissing
from taskcell.model import MIB
from taskcell.text import MESSAGE_SHOWN, shown

log = structlog.get_logger(__name__)

#: Seconds between two lines of progress in the log.
PROGRESS_EVERY = 2.0
_NO_CREDENTIALS = "the docker configuration's credentials for its registry cannot be read"


def pull(
    client: APIClient,
    reference: str,
    platform: str,
    abandoned: threading.Event,
    note: Callable[[str], None],
) -> None:
    """Pull the image, with lines of progress in the log. Raises ImageMissing.


    A registry that wants to know who asks gets what the docker configuration has for it, through its credential helper
    if it names one.
    """
    log.info("pulling an image", image=reference)
    logged = time.monotonic()
    try:
        client.reload_config()  # a person may have signed in since
        for step in client.pull(reference, stream=True, decode=True, platform=platform or None):
            if abandoned.is_set():
                raise EngineError("The image is not needed any longer.")
            if "error" in step:
                raise ImageMissing(_cannot_pull(reference, step["error"]))
            size = step.get("progressDetail") or {}
            if "current" in size and "total" in size:
                done = f"{size['current'] / MIB:.1f} of {size['total'] / MIB:.1f} MiB"
                note(f"{str(step.get('status')).lower()} layer {step.get('id')}, {done}")
            if time.monotonic() - logged > PROGRESS_EVERY:
                logged = time.monotonic()
                log.info("pulling", image=reference, layer=step.get("id"), progress=step.get("progress"))
    except APIError as error:
        raise ImageMissing(_cannot_pull(reference, str(error.explanation or error))) from error
    except DockerException:
        # Without the cause: what a credential helper prints may be the secret itself.
        raise ImageMissing(_cannot_pull(reference, _NO_CREDENTIALS)) from None
    log.info("pulled", image=reference)


def why_not_pulled(client: APIClient, reference: str) -> str:
    try:
        client.reload_config()
        client.inspect_distribution(reference)
    except APIError as error:
        return shown(" ".join(str(error.explanation or error).split()).rstrip("."), MESSAGE_SHOWN)
    except DockerException:
        return _NO_CREDENTIALS
    return ""


def _cannot_pull(reference: str, said: str) -> str:
    why = shown(" ".join(said.split()).rstrip("."), MESSAGE_SHOWN)
    return (
        f"The image {reference} is not on the engine and could not be pulled ({why}). The person who runs the server "
        "must check its name, or load it on the host with `docker load` or `docker import`."
    )
