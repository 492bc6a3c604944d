"""What taskcell needs from a container engine, and nothing more."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from enum import Enum
from typing import BinaryIO, Protocol

from anyio.abc import ByteStream

from taskcell.images.engine import ImageEngine
from taskcell.model import LOCAL_PRINCIPAL
from taskcell.policy.policy import AuthorizedProfile

#: proc(5): stopped by a signal, and by a tracer.
STOPPED_STATES = frozenset("Tt")
#: Seconds for a new container to give its profile's `own` to the user: a slow disk copies a gigabyte in that time.
OWN_TIMEOUT = 120.0
#: Workspaces that one request fills with copies: the first is not ready before the last, and each is a mount.
COPIES_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class Holder:
    """A container that has a task's workspace mounted.

    Arguments:
        targets: where its profile mounts something more.
        is_reader: it may not write to the workspace; who takes its volumes may not either.
    """

    id: str
    targets: frozenset[str]
    is_reader: bool = False


@dataclass(frozen=True, slots=True)
class Workspace:
    """Where a task's files are, or are to be.

    Arguments:
        size: bytes that it may hold.
        name: of its volume; empty when it has none yet.
        holders: containers that may have it mounted: in memory, files live only while one of them runs.
        persistent: on disk, whether or not anything mounts it.
        folder: absolute path of the host folder that is used instead of a volume; empty: a volume.
    """

    size: int
    name: str = ""
    holders: tuple[Holder, ...] = ()
    persistent: bool = False
    folder: str = ""


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """What to create: an authorised profile, for one owner.

    Arguments:
        name: unique among the engine's containers.
        labels: `taskcell=1` and who owns it; never secret.
        principal: whose task it is for; named volumes are that principal's.
        claim_within: seconds that its supervisor waits for the server that has it started; then it ends.
        shares_files: profiles that run as other users write to the task's files too.
        allow_unenforced: keys of a profile that need not hold, because the operator says so: `pids`, `network`.
        siblings: profiles that may come to use the same files; an engine that must may make room for them at once.
    """

    profile: AuthorizedProfile
    name: str
    workspace: Workspace
    labels: Mapping[str, str]
    claim_within: float
    shares_files: bool = False
    principal: str = LOCAL_PRINCIPAL
    allow_unenforced: frozenset[str] = frozenset()
    siblings: Callable[[], Sequence[AuthorizedProfile]] = tuple


@dataclass(frozen=True, slots=True)
class Container:
    """A started container.

    Arguments:
        id: the engine's id.
        workspace: absolute path of the task's files as processes in it see them.
        supervisor: absolute path of the supervisor's program as processes in it see it.
        reports: absolute path of the folder in which shells report where they end, as processes in it see it.
        user: whom commands run as; None means the supervisor's own user.
        environment: the image's own variables.
        entrypoint, command: the image's own.
        working_dir: the image's own; empty means none.
        image_id: the engine's id of the image that it was made from.
        volume: name of the workspace's volume, or its folder.
        folder: device and inode of the host folder that is the workspace; None where it is none, or not known.
        is_fresh: its workspace was made with it, so that it holds no file of an earlier sandbox.
        is_owner: the engine removes the volume by itself with the last of the containers that own it.
        is_child: it is a process of this server, and the engine does not remove it by itself.
        is_filtered: the engine was asked for a filter of system calls.
        shares_files: as in `ContainerSpec`.
        runtime: the engine's word for what runs it, such as `runc`; empty where it does not say.
        is_pod: a NetworkPolicy keeps it from its network and not the lack of one.
        transfers_apart: its engine can carry a large file beside its channel (`TransfersApart`).
        is_contended: another server may take it; only `assign` decides.
    """

    id: str
    name: str
    workspace: str
    supervisor: str
    reports: str
    user: str | None
    environment: Mapping[str, str] = field(default_factory=dict)
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    working_dir: str = ""
    image_id: str = ""
    volume: str = ""
    folder: tuple[int, int] | None = None
    is_fresh: bool = True
    is_owner: bool = True
    is_child: bool = False
    is_filtered: bool = False
    shares_files: bool = False
    runtime: str = ""
    is_pod: bool = False
    transfers_apart: bool = False
    is_contended: bool = False


@dataclass(frozen=True, slots=True)
class ListedContainer:
    """A container of a deployment, as the engine lists it.

    Arguments:
        labels: those that it was created with.
        state: in the engine's words, such as `running` or `paused`.
        age: seconds since its creation.
    """

    id: str
    name: str
    labels: Mapping[str, str]
    state: str
    age: float


@dataclass(frozen=True, slots=True)
class ListedVolume:
    """A named volume that tasks of one principal share.

    Arguments:
        id: the engine's name of it.
        name: as profiles have it.
        is_local: it is the person's own, not another principal's.
        size, containers: its bytes, and how many mount it, running or not; None where the engine does not say.
    """

    id: str
    name: str
    is_local: bool
    size: int | None
    containers: int | None


class Standing(Enum):
    """How a container stands. `STOPPED`: a signal holds its supervisor, or what carries its channel there."""

    RUNS = "runs"
    STOPPED = "stopped"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """What the engine can and cannot do, found by asking it once; sentences for the operator.

    `weaknesses`: protections that taskcell has by default and that do not hold. `faults`: why nothing works at all.
    """

    name: str
    version: str
    isolated: bool
    weaknesses: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()


class Engine(Protocol):
    """Creates and removes containers and opens the byte stream to a container's supervisor.

    Every method raises EngineUnavailable when the engine does not answer, and EngineError for anything else that it
    refuses, unless its own docstring says otherwise.
    """

    @property
    def images(self) -> ImageEngine | None:
        """The images that it has; None for an engine that makes its sandboxes from none."""

    async def facts(self) -> EngineFacts:
        """Ask the engine once; later calls return the same answer."""

    # --- containers

    async def start(self, spec: ContainerSpec) -> Container:
        """Create and start a container with the supervisor as PID 1.

        A container that was created but could not be started is removed.

        Raises:
            ImageMissing: the image is not there and cannot be pulled.
        """

    async def find(self, container_id: str, profile: AuthorizedProfile) -> Container | None:
        """A container that was started earlier, maybe by another server; None when it does not run."""

    async def image_id(self, profile: AuthorizedProfile) -> str:
        """The id of the image that a container of this profile would be made from now; empty when there is none."""

    async def assign(self, container: Container, name: str) -> Container:
        """Give a container that was made for no task the name of one of a task's.

        Raises Taken: another server has it. Of several that want one which `is_contended`, one gets it.
        """

    async def containers(self, deployment: str) -> Sequence[ListedContainer]:
        """A deployment's containers, whoever made them, running or not."""

    async def stop(self, container_id: str) -> None:
        """Have a container's supervisor kill everything and end, as at the end of its server; then remove it.

        Does nothing when it is gone already.
        """

    async def remove(self, container: Container, *, keep: bool = False) -> None:
        """Kill and remove; `keep` only kills. Does nothing when it is gone already."""

    async def standing(self, container: Container) -> Standing:
        """How a container stands. An engine that cannot see its processes says `RUNS` while it runs."""

    async def why_dead(self, container: Container) -> str:
        """One sentence on why a container has stopped running; never raises."""

    async def follow(self, instance: str, ended: Callable[[str], None]) -> None:
        """Say which containers of a server have ended, until cancelled. Returns where a stream ends with its own."""

    def connect(self, container: Container) -> AbstractAsyncContextManager[ByteStream]:
        """Open the stream to the supervisor. Raises SandboxLost when the container is gone."""

    async def memory(self, container: Container) -> int | None:
        """Bytes of memory that the container uses now; None when the engine cannot measure it."""

    # --- workspaces

    async def bounds_volumes(self, size: int) -> bool:
        """Whether a volume on disk can be bounded to `size` bytes."""

    async def save_files(self, container: Container, file: BinaryIO, most: int) -> None:
        """Write what is in a container's workspace as a tar archive. EngineError: that has more than `most` bytes."""

    async def put_files(self, container: Container, file: BinaryIO) -> None:
        """Unpack a tar archive, from where the file stands, into a container's workspace."""

    async def copy_files(self, source: Container, targets: Sequence[Container], runtime: str) -> Sequence[str]:
        """Have others' workspaces hold what a container's does and nothing else, as fast as the engine can.

        Returns for each why its copy is not whole; an empty text where it is.

        Arguments:
            targets: containers that run; COPIES_AT_ONCE of them at most.
            runtime: that they run with; empty means the engine's own.
        """

    def frozen(self, containers: Sequence[Container]) -> AbstractAsyncContextManager[None]:
        """Have nothing run in some containers for as long as this is entered. Those that are gone are left out."""

    async def remove_workspace(self, name: str) -> None:
        """Remove a volume and its files. Does nothing when it is gone already."""

    async def shared_volumes(self, deployment: str) -> Sequence[ListedVolume]:
        """The named volumes of a deployment, whoever's they are. Their sizes are counted now, file by file."""

    async def sweep(self, deployment: str, living: Collection[str]) -> None:
        """Remove the volumes that killed servers of a deployment left and nothing mounts.

        Arguments:
            living: instances that still run; theirs are left alone.
        """

    async def sweep_own(self, instance: str) -> None:
        """Remove the volumes that one server made and nothing mounts: a restarted engine leaves some."""

    async def aclose(self) -> None:
        """Close connections; containers stay."""
