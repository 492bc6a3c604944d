"""What taskcell needs of a container engine, and nothing more."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Protocol

from anyio.abc import ByteStream

from taskcell.policy import AuthorizedProfile


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """What to create: an authorised profile, for one owner.

    Arguments:
        name: unique among the engine's containers.
        workspace: name of the workspace's volume; `workspace_size` its size in bytes.
        labels: `taskcell=1` and who owns it; never secret.
    """

    profile: AuthorizedProfile
    name: str
    workspace: str
    workspace_size: int
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Container:
    """A started container.

    Arguments:
        id: the engine's id.
        workspace: absolute path of the task's files as processes in it see them.
        supervisor: absolute path of the supervisor's program as processes in it see it.
        user: whom commands run as; None means the supervisor's own user.
        environment: the image's own variables.
        entrypoint, command: the image's own.
        working_dir: the image's own; empty means none.
    """

    id: str
    name: str
    workspace: str
    supervisor: str
    user: str | None
    environment: Mapping[str, str] = field(default_factory=dict)
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    working_dir: str = ""


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """What the engine can and cannot do, found by asking it once.

    `weaknesses` are sentences for the operator: each names a default of the contract that does not hold here.
    """

    name: str
    version: str
    isolated: bool
    weaknesses: tuple[str, ...] = ()


class Engine(Protocol):
    """Creates and removes containers and opens the byte stream to a container's supervisor."""

    async def facts(self) -> EngineFacts:
        """Probe the engine once; later calls answer from memory. Raises EngineUnavailable."""

    async def create_workspace(self, name: str, size: int, labels: Mapping[str, str]) -> None:
        """Make the volume for a task's files, `size` bytes, in memory. It exists already: nothing happens."""

    async def remove_workspace(self, name: str) -> None:
        """Remove the volume and its files. It is gone already: nothing happens."""

    async def start(self, spec: ContainerSpec) -> Container:
        """Create and start a container with the supervisor as PID 1.

        Raises:
            EngineUnavailable: the engine does not answer.
            ImageMissing: the image is not there and cannot be pulled.
            EngineError: anything else the engine refuses.
        A container that was created but could not be started is removed.
        """

    async def remove(self, container: Container, *, keep: bool = False) -> None:
        """Kill and remove; `keep` stops it only. It is gone already: nothing happens."""

    async def why_dead(self, container: Container) -> str:
        """One sentence on why a container is not running any more; never raises."""

    def connect(self, container: Container) -> AbstractAsyncContextManager[ByteStream]:
        """Open the stream to the supervisor. Raises SandboxLost when the container is gone."""

    async def memory(self, container: Container) -> int | None:
        """Bytes of memory that the container uses now; None where the engine does not tell."""

    async def aclose(self) -> None:
        """Let go of connections; containers stay."""
