"""The sandboxes of a deployment, as a process sees them that is not one of its servers."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import anyio

from taskcell.deployment.base import Deployment
from taskcell.deployment.opened import UNOPENED, Opening, read_opened
from taskcell.deployment.records import SandboxRecord
from taskcell.engine.base import Container, Engine, ListedContainer
from taskcell.errors import TaskcellError
from taskcell.model import TaskKey

#: A sandbox without a living server: it removes itself, or the next server takes it up.
ORPHAN = "orphan"
WARM = "warm"
#: A sandbox that its living server has not written down yet, as it does once a second, or is closing.
STARTING = "starting"


@dataclass(frozen=True, slots=True)
class Deployed:
    """One sandbox of the deployment; times in seconds, memory in bytes.

    Arguments:
        record: what its server wrote about it.
        server: the instance of its server that lives; empty: there is none.
        opening: what its task was opened with.
    """

    id: str
    container: str
    profile: str
    state: str
    age_s: float
    memory_bytes: int | None
    record: SandboxRecord | None
    server: str = ""
    opening: Opening = UNOPENED

    @property
    def key(self) -> TaskKey | None:
        """The task that has it; None where no task has it, or no server wrote down which."""
        return self.record.key if self.record is not None and self.record.task else None

    @property
    def idle_s(self) -> float:
        """Seconds since its last call or process ended; 0 while there is one."""
        since = self.record.idle_since if self.record is not None else 0.0
        # The engine tells ages in whole seconds.
        return round(min(self.age_s, max(0.0, time.time() - since)), 1) if since else 0.0

    def structured(self) -> dict[str, object]:
        """As `taskcell ps --json` shows it."""
        return {
            "task": self.record.task if self.record is not None else "",
            "principal": self.record.principal if self.record is not None else "",
            "profile": self.profile,
            "container": self.container,
            "state": self.state,
            "age_s": self.age_s,
            "idle_s": self.idle_s,
            "processes": self.record.processes if self.record is not None else 0,
            "memory_bytes": self.memory_bytes,
            "labels": dict(self.opening.labels),
            "ends_in_s": None if (left := self.opening.seconds_left) is None else round(left, 1),
        }


async def find_deployed(engine: Engine, deployment: Deployment, name: str) -> list[Deployed]:
    """Every sandbox that the engine has of the deployment, by principal and task. Raises EngineError."""
    servers = await deployment.servers()
    known = {record.container: record for server in servers for record in server.sandboxes}
    living = {server.instance for server in servers if server.alive}
    served = {record.container: server.instance for server in servers if server.alive for record in server.sandboxes}
    opened = await anyio.to_thread.run_sync(read_opened, deployment.state.folder)
    listed = await engine.containers(name)
    memory = await _memory(engine, listed)
    found = [
        Deployed(
            id=one.id,
            container=one.name,
            profile=one.labels.get("taskcell.profile", ""),
            state=_state(one, known, served, living),
            age_s=round(one.age, 1),
            memory_bytes=memory.get(one.id),
            record=known.get(one.id),
            server=served.get(one.id, ""),
            opening=opened.get(known[one.id].key, UNOPENED) if one.id in known else UNOPENED,
        )
        for one in listed
    ]
    return sorted(found, key=lambda one: (one.key is None, one.structured()["principal"], str(one.key), one.profile))


def _state(
    one: ListedContainer, known: Mapping[str, SandboxRecord], served: Collection[str], living: Collection[str]
) -> str:
    if one.state != "running":
        return one.state
    record = known.get(one.id)
    if record is None and one.labels.get("taskcell.instance") in living:
        return STARTING
    if record is None or one.id not in served:
        return ORPHAN
    if not record.task:
        return WARM
    return "ready" if record.idle_since else "busy"


async def _memory(engine: Engine, listed: Collection[ListedContainer]) -> Mapping[str, int | None]:
    memory: dict[str, int | None] = {}

    async def measure(one: ListedContainer) -> None:
        try:
            memory[one.id] = await engine.memory(Container(one.id, one.name, "", "", "", None))
        except TaskcellError:
            memory[one.id] = None  # it went away meanwhile

    async with anyio.create_task_group() as measuring:
        for one in listed:
            if one.state == "running":
                measuring.start_soon(measure, one)
    return memory
