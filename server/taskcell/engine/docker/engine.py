"""The Docker engine: API 1.41 and newer, blocking calls in threads, the channel's bytes on the event loop."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import anyio
import anyio.abc
import anyio.to_thread
from docker.errors import APIError, NotFound

from taskcell.engine.base import Container, ContainerSpec, EngineFacts, Listed
from taskcell.engine.docker import creation, images, workspaces
from taskcell.engine.docker.classify import classify, is_not_running, lacks_supervisor
from taskcell.engine.docker.connection import Connection, connect
from taskcell.engine.docker.exec_stream import open_exec
from taskcell.engine.docker.hardening import SOCKET, SUPERVISOR
from taskcell.errors import EngineError, EngineUnavailable, SandboxLost
from taskcell.policy.policy import AuthorizedProfile

T = TypeVar("T")

#: Blocking calls at once: the engine handles creations mostly one after the other, so more would only wait there.
CALLS_AT_ONCE = 16


class DockerEngine:
    """Talks to one engine. Nothing is connected before the first call, and a failed connection is tried afresh at the
    next one: a server that was started before its engine works as soon as the engine does.

    Arguments:
        host: the configuration's engine.host; empty to look where the docker command line does.
        environ: of the server; DOCKER_HOST, DOCKER_CONTEXT, TLS and home are read from it.
        runtime: of the engine, for profiles that name none; empty means the engine's default.
    """

    def __init__(self, host: str, environ: Mapping[str, str], runtime: str = "") -> None:
        self._host = host
        self._environ = environ
        self._runtime = runtime
        self._limiter = anyio.CapacityLimiter(CALLS_AT_ONCE)
        self._connecting = anyio.Lock()
        self._connection: Connection | None = None
        self._facts: EngineFacts | None = None

    @classmethod
    async def open(cls, host: str, environ: Mapping[str, str], runtime: str = "") -> DockerEngine:
        """An engine that has answered already. Raises EngineUnavailable."""
        engine = cls(host, environ, runtime)
        await engine._connected()
        return engine

    @classmethod
    def over(cls, connection: Connection) -> DockerEngine:
        """An engine over a connection that stands already."""
        engine = cls("", {})
        engine._connection = connection
        return engine

    async def _connected(self) -> Connection:
        if self._connection is None:
            async with self._connecting:
                if self._connection is None:
                    self._connection = await anyio.to_thread.run_sync(
                        connect, self._host, self._environ, abandon_on_cancel=True
                    )
        return self._connection

    async def _call(self, doing: str, work: Callable[[Connection], T]) -> T:
        """Run a blocking call in a thread; its errors come back as ours. A cancelled caller does not wait for it."""
        connection = await self._connected()
        try:
            return await anyio.to_thread.run_sync(work, connection, abandon_on_cancel=True, limiter=self._limiter)
        except Exception as error:
            raise classify(error, doing) from error

    async def facts(self) -> EngineFacts:
        if self._facts is None:
            self._facts = await self._call("tell what it can do", self._probe)
        return self._facts

    @staticmethod
    def _probe(on: Connection) -> EngineFacts:
        info, version = on.client.info(), on.client.version()
        weak = [
            f"The engine cannot limit {what}; profiles that bound it are refused."
            for what, key in (("memory", "MemoryLimit"), ("cpus", "CpuCfsQuota"), ("processes", "PidsLimit"))
            if not info.get(key, True)
        ]
        if not any("seccomp" in option for option in info.get("SecurityOptions") or ()):
            weak.append("The engine has no seccomp filter: commands can make every system call.")
        if not info.get("SwapLimit", True):
            weak.append("The engine cannot limit swap: a sandbox may use swap beyond its memory.")
        name = (version.get("Platform") or {}).get("Name") or "Docker Engine"
        return EngineFacts(name, str(version.get("Version", "?")), isolated=True, weaknesses=tuple(weak))

    # --- workspaces ----------------------------------------------------------------------------------------------

    async def remove_workspace(self, name: str) -> None:
        await self._call("remove the workspace", lambda on: workspaces.remove(on.client, name))

    async def sweep(self, deployment: str, living: Collection[str]) -> None:
        await self._call("look for old workspaces", lambda on: workspaces.sweep(on.client, deployment, living))

    async def sweep_own(self, instance: str) -> None:
        await self._call("remove the workspaces", lambda on: workspaces.sweep_own(on.client, instance))

    async def bounds_volumes(self, size: int) -> bool:
        """Whether a volume on disk can be bounded here: the engine's storage has quotas."""

        def probe(on: Connection) -> bool:
            name = f"taskcell-probe-{secrets.token_hex(8)}"
            try:
                return workspaces.make_bounded(on.client, name, size, {"taskcell.kind": "probe"})
            finally:
                on.client.remove_volume(name)

        return await self._call("make a volume", probe)

    # --- containers ----------------------------------------------------------------------------------------------

    async def start(self, spec: ContainerSpec) -> Container:
        image = await self.image(spec.profile.profile.image, spec.profile.profile.platform)
        abandoned = threading.Event()

        def work(on: Connection) -> Container:
            try:
                return creation.create_and_start(on, spec, image, self._runtime, abandoned)
            except APIError as error:
                if not lacks_supervisor(error):
                    raise
                on.supervisors.forget()
                return creation.create_and_start(on, spec, image, self._runtime, abandoned)

        try:
            return await self._call("start the sandbox", work)
        except anyio.get_cancelled_exc_class():
            abandoned.set()  # the thread goes on; it removes what it made
            raise

    async def image(self, reference: str, platform: str = "") -> Mapping[str, Any]:
        """The engine's inspection of an image, pulled first if need be. Raises ImageMissing."""
        return await self._call(f"get the image {reference}", lambda on: images.ensure(on.client, reference, platform))

    async def remove(self, container: Container, *, keep: bool = False) -> None:
        def work(on: Connection) -> None:
            if keep:
                on.client.kill(container.id)
            else:
                creation.remove(on.client, container.id)

        try:
            await self._call("remove the sandbox", work)
        except EngineError as error:
            if not is_not_running(error.__cause__):
                raise

    async def find(self, container_id: str, profile: AuthorizedProfile) -> Container | None:
        return await self._call("find the sandbox", lambda on: creation.find(on.client, container_id, profile.profile))

    async def image_id(self, profile: AuthorizedProfile) -> str:
        def work(on: Connection) -> str:
            try:
                return str(on.client.inspect_image(profile.profile.image)["Id"])
            except NotFound:
                return ""

        return await self._call("inspect the image", work)

    async def rename(self, container: Container, name: str) -> Container:
        await self._call("rename the sandbox", lambda on: on.client.rename(container.id, name))
        return replace(container, name=name)

    async def containers(self, deployment: str) -> Sequence[Listed]:
        wanted = {"label": ["taskcell=1", f"taskcell.deployment={deployment}"]}

        def work(on: Connection) -> Sequence[Listed]:
            now = time.time()
            return [
                Listed(
                    id=str(found["Id"]),
                    name=str(found["Names"][0]).removeprefix("/"),
                    labels=dict(found.get("Labels") or {}),
                    state=str(found["State"]),
                    age=max(0.0, now - float(found["Created"])),
                )
                for found in on.client.containers(all=True, filters=wanted)
                if found.get("Names")
            ]

        return await self._call("list the sandboxes", work)

    async def stop(self, container_id: str) -> None:
        await self._call("stop the sandbox", lambda on: creation.stop(on.client, container_id))

    async def why_dead(self, container: Container) -> str:
        def work(on: Connection) -> str:
            state = on.client.inspect_container(container.id)["State"]
            if state.get("Running"):
                return "Its container still runs."
            if state.get("OOMKilled"):
                return "It ran out of memory."
            return f"Its container ended with code {state.get('ExitCode')}. {state.get('Error') or ''}".strip()

        try:
            return await self._call("inspect the sandbox", work)
        except EngineUnavailable as error:
            return str(error)
        except EngineError:
            return "Its container was removed."

    async def memory(self, container: Container) -> int | None:
        def work(on: Connection) -> int | None:
            stats = on.client.stats(container.id, stream=False, one_shot=True)
            usage = stats.get("memory_stats", {}).get("usage")
            return None if usage is None else int(usage)

        return await self._call("measure the sandbox", work)

    # --- the channel ---------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def connect(self, container: Container) -> AsyncIterator[anyio.abc.ByteStream]:
        argv = [SUPERVISOR, "connect", "--socket", SOCKET]

        def create(on: Connection) -> str:
            made = on.client.exec_create(container.id, argv, stdin=True, tty=False, user="0:0")
            return str(made["Id"])

        try:
            exec_id = await self._call("open the sandbox's channel", create)
        except EngineError as error:
            if is_not_running(error.__cause__):
                raise SandboxLost("The sandbox's container does not run.") from error
            raise
        on = await self._connected()
        stream = await open_exec(on.endpoint, str(on.client.api_version), exec_id)
        try:
            yield stream
        finally:
            await anyio.aclose_forcefully(stream)

    # --- images --------------------------------------------------------------------------------------------------

    async def image_labels(self, reference: str) -> Mapping[str, str] | None:
        """The labels of an image that the engine has; None when it has none of that name."""
        return await self._call("inspect the image", lambda on: images.labels(on.client, reference))

    async def import_image(self, tar: Path, reference: str, changes: Sequence[str]) -> None:
        """Make an image from a root file system's tar file; `changes` are Dockerfile instructions."""
        await self._call("import the image", lambda on: images.import_tar(on.client, tar, reference, changes))

    async def image_architecture(self, reference: str) -> str:
        """The architecture of an image, in the engine's words, such as `amd64`."""
        return str((await self.image(reference))["Architecture"])

    async def build_image(
        self, dockerfile: str, reference: str, report: Callable[[str], None], context: Path | None = None
    ) -> None:
        """Build an image; `report` gets the build's lines, from a thread; `context` is a folder of files to copy.

        Cancelled, the engine ends the build when its next line comes.
        """
        abandoned = threading.Event()

        def keep(line: str) -> None:
            if abandoned.is_set():
                raise EngineError("Nobody waits for the image any more.")
            report(line)

        try:
            await self._call(
                "build the image", lambda on: images.build(on.client, dockerfile, reference, keep, context)
            )
        except anyio.get_cancelled_exc_class():
            abandoned.set()
            raise

    async def aclose(self) -> None:
        if self._connection is not None:
            self._connection.client.close()
