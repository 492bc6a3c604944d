"""The Docker engine: API 1.41 and newer, blocking calls in threads, the channel's bytes on the event loop."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from typing import BinaryIO

import anyio
import anyio.abc
from docker.errors import APIError

from taskcell.engine.base import (
    OWN_TIMEOUT,
    Container,
    ContainerSpec,
    EngineFacts,
    ListedContainer,
    ListedVolume,
    Standing,
)
from taskcell.engine.docker import copying, creation, freezing, shared_volumes, tcp_memory, workspaces
from taskcell.engine.docker.calls import Calls
from taskcell.engine.docker.classify import is_not_running, lacks_supervisor, lacks_workspace
from taskcell.engine.docker.connection import Connection
from taskcell.engine.docker.exec_stream import OPEN_TIMEOUT, open_exec
from taskcell.engine.docker.images import DockerImages
from taskcell.engine.docker.standing import CHANNEL, standing_of
from taskcell.errors import EngineError, EngineUnavailable, SandboxLost
from taskcell.model import WORKSPACE
from taskcell.policy.policy import AuthorizedProfile

#: Seconds to create and start a container, which takes less than one; sixteen at once on a busy machine take ten. More
#: would not help: clients give up on a call after about a minute.
START_TIMEOUT = 45.0
#: Seconds to end and remove a container: STOP_TIMEOUT and REMOVAL_TIMEOUT, and a busy machine.
REMOVE_TIMEOUT = 30.0
#: Seconds to copy a workspace out of a container or into one: a gigabyte takes ten, and a million small files three
#: minutes on a machine with two cores.
FILES_TIMEOUT = 600.0
#: Seconds to count what is in all of the engine's volumes: a million files take a few.
SIZES_TIMEOUT = 60.0
_HANGING_FOLDER = "A folder of the host that it mounts may be on a file system that hangs. "
_START_ADVICE = (
    "It hangs or is overloaded, or the image {image} cannot be started. Call again in a minute; if that fails too, the "
    "person who runs the server must look at the engine (`taskcell doctor`) and at the image."
)


class DockerEngine:
    """Talks to one engine.

    Arguments:
        calls: how it is reached.
        runtime: of the engine, for profiles that name none; empty means the engine's default.
    """

    def __init__(self, calls: Calls, runtime: str = "") -> None:
        self._call = calls
        self._runtime = runtime
        self._facts: EngineFacts | None = None
        self.images = DockerImages(calls)

    @classmethod
    async def open(cls, host: str, environ: Mapping[str, str], runtime: str = "") -> DockerEngine:
        """An engine that has answered already. Raises EngineUnavailable."""
        calls = Calls(host, environ)
        await calls.connected()
        return cls(calls, runtime)

    async def facts(self) -> EngineFacts:
        if self._facts is None:
            self._facts = await self._call("say what it can do", self._probe)
        return self._facts

    @staticmethod
    def _probe(on: Connection) -> EngineFacts:
        info, version = on.client.info(), on.client.version()
        weak = [
            f"The engine cannot limit {what}; profiles that bound it are refused."
            for what, key in (("memory", "MemoryLimit"), ("cpus", "CpuCfsQuota"), ("processes", "PidsLimit"))
            if not info.get(key, True)
        ]
        if on.traits.filter_weakness:
            weak.append(on.traits.filter_weakness)
        if not (on.traits.counts_sockets or (on.endpoint.socket and tcp_memory.can_bound())):
            weak.append(tcp_memory.WEAKNESS)
        if not info.get("SwapLimit", True):
            weak.append("The engine cannot limit swap: a sandbox may use swap beyond its memory.")
        name = (version.get("Platform") or {}).get("Name") or "Docker Engine"
        return EngineFacts(name, str(version.get("Version", "?")), isolated=True, weaknesses=tuple(weak))

    # --- workspaces ----------------------------------------------------------------------------------------------

    async def save_files(self, container: Container, file: BinaryIO, most: int) -> None:
        def work(on: Connection) -> None:
            workspaces.save(on.client, container.id, file, most)

        await self._call("read the task's files", work, within=FILES_TIMEOUT)

    async def put_files(self, container: Container, file: BinaryIO) -> None:
        def work(on: Connection) -> None:
            on.client.put_archive(container.id, WORKSPACE, file)

        await self._call("put the task's files back", work, within=FILES_TIMEOUT)

    async def save_folder(self, container: Container, folder: str, file: BinaryIO, most: int) -> None:
        def work(on: Connection) -> None:
            workspaces.save(on.client, container.id, file, most, folder)

        await self._call("read the task's files", work, within=FILES_TIMEOUT)

    async def put_folder(self, container: Container, folder: str, archive: Iterator[bytes]) -> None:
        def work(on: Connection) -> None:
            on.client.put_archive(container.id, folder, archive)

        await self._call("put the task's files back", work, within=FILES_TIMEOUT)

    async def copy_files(self, source: Container, targets: Sequence[Container], runtime: str) -> Sequence[str]:
        def work(on: Connection) -> Sequence[str]:
            return copying.copy(on, source, targets, runtime or self._runtime)

        return await self._call("copy the task's files", work, within=FILES_TIMEOUT)

    @asynccontextmanager
    async def frozen(self, containers: Sequence[Container]) -> AsyncIterator[None]:
        paused: list[str] = []
        ids = [container.id for container in containers]
        try:
            await self._call("pause the sandbox", lambda on: freezing.freeze(on.client, ids, paused))
            yield
        finally:
            with anyio.CancelScope(shield=True):  # bounded by the call
                await self._call("let the sandbox go on", lambda on: freezing.thaw(on.client, paused))

    async def remove_workspace(self, name: str) -> None:
        await self._call("remove the workspace", lambda on: workspaces.remove(on.client, name))

    async def shared_volumes(self, deployment: str) -> Sequence[ListedVolume]:
        return await self._call(
            "list volumes", lambda on: shared_volumes.listed(on.client, deployment), within=SIZES_TIMEOUT
        )

    async def sweep(self, deployment: str, living: Collection[str]) -> None:
        await self._call("look for old workspaces", lambda on: workspaces.sweep(on.client, deployment, living))

    async def sweep_own(self, instance: str) -> None:
        await self._call("remove the workspaces", lambda on: workspaces.sweep_own(on.client, instance))

    async def bounds_volumes(self, size: int) -> bool:
        """Whether a volume on disk can be bounded here: the engine's storage has quotas."""

        def probe(on: Connection) -> bool:
            name = f"taskcell-probe-{secrets.token_hex(8)}"
            try:
                return workspaces.make_on_disk(on.client, name, {"taskcell.kind": "probe"}, on.traits, size=size)
            finally:
                on.client.remove_volume(name)

        return await self._call("make a volume", probe)

    # --- containers ----------------------------------------------------------------------------------------------

    async def start(self, spec: ContainerSpec) -> Container:
        image = await self.images.ensure(spec.profile.image, spec.profile.platform)
        abandoned = threading.Event()

        def work(on: Connection) -> Container:
            try:
                return creation.create_and_start(on, spec, image, self._runtime, abandoned)
            except APIError as error:
                if lacks_supervisor(error):
                    on.supervisors.forget()
                elif not lacks_workspace(error, [holder.id for holder in spec.workspace.holders]):
                    raise
                return creation.create_and_start(on, spec, image, self._runtime, abandoned)

        within = START_TIMEOUT + (OWN_TIMEOUT if spec.profile.own else 0.0)
        has_folders = spec.profile.folder is not None or any(mount.source for mount in spec.profile.mounts)
        advice = (_HANGING_FOLDER if has_folders else "") + _START_ADVICE.format(image=spec.profile.image)
        try:
            return await self._call("start the sandbox", work, within=within, advice=advice)
        finally:
            abandoned.set()  # a thread that goes on removes what it made

    async def remove(self, container: Container, *, keep: bool = False) -> None:
        def work(on: Connection) -> None:
            if keep:
                on.client.kill(container.id)
            else:
                creation.remove(on.client, container.id)

        try:
            await self._call("remove the sandbox", work, within=REMOVE_TIMEOUT)
        except EngineError as error:
            if not is_not_running(error.__cause__):
                raise

    async def find(self, container_id: str, profile: AuthorizedProfile) -> Container | None:
        return await self._call("find the sandbox", lambda on: creation.find(on.client, container_id, profile))

    async def image_id(self, profile: AuthorizedProfile) -> str:
        return await self.images.image_id(profile.image)

    async def assign(self, container: Container, name: str) -> Container:
        """A container is one server's: nobody else takes it."""
        await self._call("rename the sandbox", lambda on: on.client.rename(container.id, name))
        return replace(container, name=name)

    async def containers(self, deployment: str) -> Sequence[ListedContainer]:
        wanted = {"label": ["taskcell=1", f"taskcell.deployment={deployment}"]}

        def work(on: Connection) -> Sequence[ListedContainer]:
            now = time.time()
            return [
                ListedContainer(
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
        await self._call("stop the sandbox", lambda on: creation.stop(on.client, container_id), within=REMOVE_TIMEOUT)

    async def standing(self, container: Container) -> Standing:
        return await self._call("inspect the sandbox", lambda on: standing_of(on, container.id))

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

    async def follow(self, instance: str, ended: Callable[[str], None]) -> None:
        """A stream ends with its container."""

    async def memory(self, container: Container) -> int | None:
        def work(on: Connection) -> int | None:
            stats = on.client.stats(container.id, stream=False, one_shot=True)
            usage = stats.get("memory_stats", {}).get("usage")
            return None if usage is None else int(usage)

        return await self._call("measure the sandbox", work)

    # --- the channel ---------------------------------------------------------------------------------------------

    def connect(self, container: Container) -> AbstractAsyncContextManager[anyio.abc.ByteStream]:
        return self._execute(container, CHANNEL)

    def apart(self, container: Container, words: Sequence[str]) -> AbstractAsyncContextManager[anyio.abc.ByteStream]:
        first = (container.supervisor, "apart", container.user or "", container.workspace)
        return self._execute(container, (*first, *words))

    @asynccontextmanager
    async def _execute(self, container: Container, words: Sequence[str]) -> AsyncIterator[anyio.abc.ByteStream]:
        def create(on: Connection) -> str:
            made = on.client.exec_create(container.id, list(words), stdin=True, tty=False, user="0:0")
            return str(made["Id"])

        try:
            exec_id = await self._call("open a stream to the sandbox", create, within=OPEN_TIMEOUT)
        except EngineError as error:
            if is_not_running(error.__cause__):
                raise SandboxLost("The sandbox's container does not run.") from error
            raise
        on = await self._call.connected()
        stream = await open_exec(on.endpoint, str(on.client.api_version), exec_id)
        try:
            yield stream
        finally:
            await anyio.aclose_forcefully(stream)

    async def aclose(self) -> None:
        self._call.close()
