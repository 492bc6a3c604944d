"""Images: inspected, pulled with progress, imported, built. The functions block; `DockerImages` does not."""

from __future__ import annotations

import math
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import anyio
import structlog
from docker import APIClient
from docker.errors import APIError, ImageNotFound, NotFound

from taskcell.config.image_reference import NAME_PREFIX
from taskcell.engine.docker.build_context import write_context
from taskcell.engine.docker.calls import Calls
from taskcell.engine.docker.connection import Connection
from taskcell.engine.docker.image_output import image_output
from taskcell.engine.docker.pulls import pull, why_not_pulled
from taskcell.errors import EngineError, ImageMissing
from taskcell.images.skills import build_command

log = structlog.get_logger(__name__)

#: Seconds for a whole pull: 10 GB on a line of 25 Mbit/s.
PULL_TIMEOUT = 3600.0
#: Seconds that a build may print nothing: a package of 100 MB on a slow line takes minutes.
BUILD_SILENCE = 600


class DockerImages:
    """The images that one engine has."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        #: One pull of each image at a time; whoever comes meanwhile waits for it.
        self._pulls: dict[tuple[str, str], anyio.Lock] = {}
        #: How far each pull that goes on is.
        self._steps: dict[str, str] = {}

    async def ensure(self, reference: str, platform: str = "") -> Mapping[str, Any]:
        """The engine's inspection of an image, which is pulled first if need be.

        Arguments:
            platform: as in `linux/arm64`; empty for the engine's own.

        Raises:
            ImageMissing: it is not there and cannot be pulled.
        """
        doing = f"get the image {reference}"
        found = await self._calls(doing, lambda on: inspect(on.client, reference))
        if found is None:
            async with self._pulls.setdefault((reference, platform), anyio.Lock()):
                found = await self._calls(doing, lambda on: inspect(on.client, reference))
                if found is None:
                    await self._pull(doing, reference, platform)
                    found = await self._calls(doing, lambda on: _inspect(on.client, reference))
        return found

    async def _pull(self, doing: str, reference: str, platform: str) -> None:
        """Pull an image. It may take long, and says how far it is; one that stands still is given up.

        Cancelled, it ends at the engine's next word, which comes several times a second.
        """
        abandoned = threading.Event()
        self._steps[reference] = "waiting for its registry"

        def note(step: str) -> None:
            if not abandoned.is_set():
                self._steps[reference] = step

        try:
            await self._calls(
                doing,
                lambda on: pull(on.client, reference, platform, abandoned, note),
                within=PULL_TIMEOUT,
                advice="Pull it on the host with `docker pull`, which goes on where this has ended.",
            )
        finally:
            abandoned.set()
            self._steps.pop(reference, None)

    async def pulling(self, reference: str) -> str:
        """How far the pull of an image is, in a sentence; empty while it is not pulled."""
        step = self._steps.get(reference)
        return "" if step is None else f"Pulling the image {reference}: {step}."

    async def image_id(self, reference: str) -> str:
        """The engine's id of an image; empty when it has none of that name."""

        def work(on: Connection) -> str:
            try:
                return str(_inspect(on.client, reference)["Id"])
            except NotFound:
                return ""

        return await self._calls("inspect the image", work)

    async def image_labels(self, reference: str) -> Mapping[str, str] | None:
        """The labels of an image that the engine has; None when it has none of that name."""
        return await self._calls("inspect the image", lambda on: labels(on.client, reference))

    async def image_architecture(self, reference: str) -> str:
        """The architecture of an image, in the engine's words, such as `amd64`."""
        return str((await self.ensure(reference))["Architecture"])

    async def image_output(self, reference: str, script: str) -> str:
        """What a shell script prints in a container of the image, without a network. Raises EngineError."""
        return await self._calls(
            "ask the image", lambda on: image_output(on.client, reference, script), within=math.inf
        )

    async def why_not_pulled(self, reference: str) -> str:
        """Why the image cannot be pulled, as its registry says; empty if it can. Nothing is pulled."""
        return await self._calls("ask the registry", lambda on: why_not_pulled(on.client, reference))

    async def import_image(self, tar: Path, reference: str, changes: Sequence[str]) -> None:
        """Make an image from a root file system's tar file; `changes` are Dockerfile instructions."""
        await self._calls(
            "import the image", lambda on: import_tar(on.client, tar, reference, changes), within=math.inf
        )

    async def build_image(
        self,
        dockerfile: str,
        reference: str,
        report: Callable[[str], None],
        context: Path | None = None,
        *,
        cached: bool = False,
    ) -> None:
        """Build an image. Cancelled, the engine ends the build when its next line comes.

        Arguments:
            report: gets the build's lines, from a thread.
            context: folder of the files to copy.
            cached: the engine may use what it has built before.
        """
        abandoned = threading.Event()

        def keep(line: str) -> None:
            if abandoned.is_set():
                raise EngineError("The build was cancelled.")
            report(line)

        try:
            await self._calls(
                "build the image",
                lambda on: build(on.client, dockerfile, reference, keep, context, cached=cached),
                within=math.inf,
            )
        except anyio.get_cancelled_exc_class():
            abandoned.set()
            raise


def inspect(client: APIClient, reference: str) -> Mapping[str, Any] | None:
    """Inspect the image; None when the engine does not have it. Raises ImageMissing for one that is never pulled."""
    try:
        return _inspect(client, reference)
    except ImageNotFound:
        # Never pulled: an image of the same name in a registry would not be taskcell's.
        if reference.startswith(NAME_PREFIX):
            raise ImageMissing(_how_to_build(reference)) from None
    return None


def _how_to_build(reference: str) -> str:
    command = build_command(reference)
    if command is None:
        return (
            f"The image {reference} is not on the engine, and taskcell builds none of that name; the person who runs "
            "the server must choose one of those that `taskcell image build --list` shows on the host."
        )
    return (
        f"The image {reference} is not on the engine; the person who runs the server must build it on the host, with "
        f"`{command}`."
    )


def _inspect(client: APIClient, reference: str) -> Mapping[str, Any]:
    image: Mapping[str, Any] = client.inspect_image(reference)
    return image


def labels(client: APIClient, reference: str) -> Mapping[str, str] | None:
    try:
        return dict(_inspect(client, reference)["Config"].get("Labels") or {})
    except ImageNotFound:
        return None


def import_tar(client: APIClient, tar: Path, reference: str, changes: Sequence[str]) -> None:
    """Make an image from a root file system's tar file. Raises EngineError."""
    repository, _, tag = reference.rpartition(":")
    before = _id(client, reference)
    said = client.import_image(src=str(tar), repository=repository, tag=tag, changes=list(changes))
    if '"errorDetail"' in said:
        raise EngineError(f"The engine could not import the image: {' '.join(said.split())[:300]}.")
    _remove_replaced(client, before, reference)


def _id(client: APIClient, reference: str) -> str | None:
    try:
        return str(_inspect(client, reference)["Id"])
    except ImageNotFound:
        return None


def _remove_replaced(client: APIClient, before: str | None, reference: str) -> None:
    """Remove the image that had the name before, unless something else needs it."""
    if before is None or before == _id(client, reference):
        return
    try:
        if not _inspect(client, before)["RepoTags"]:
            client.remove_image(before)
    except APIError as error:
        # A container or another image still uses it.
        log.debug("the replaced image stays", image=before, reason=str(error.explanation or error))


def build(
    client: APIClient,
    dockerfile: str,
    reference: str,
    report: Callable[[str], None],
    context: Path | None = None,
    *,
    cached: bool = False,
) -> None:
    """Build from a Dockerfile, with a folder as context if need be. Raises EngineError with the engine's reason.

    Without `cached` nothing is taken from the engine's cache, which would keep old versions of packages. The steps use
    the engine's own network: its way to Debian's packages, such as a proxy on loopback, may not be reachable from a
    bridge.
    """
    before = _id(client, reference)
    with tempfile.TemporaryFile() as file:
        write_context(file, dockerfile, context)
        file.seek(0)
        steps = client.build(
            fileobj=file,
            custom_context=True,
            tag=reference,
            nocache=not cached,
            rm=True,
            forcerm=True,
            decode=True,
            timeout=BUILD_SILENCE,
            network_mode="host",
        )
        for step in steps:
            if "error" in step:
                reason = " ".join(step["error"].split()).rstrip(".")
                raise EngineError(f"The image {reference} could not be built: {reason}.")
            line = str(step.get("stream", "")).rstrip()
            if line:
                report(line)
    _remove_replaced(client, before, reference)
