"""Servers of one deployment, as their users start and kill them."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import docker
from mcp.client.client import Client

from asking import fields
from observe import HOST_TIMEOUT, containers, eventually
from serving import serving

#: Seconds that a sandbox waits for its next server in these tests: longer than a start and a call may take on a very
#: busy machine, or there is nothing left to be taken up.
ORPHAN_TTL = 150


class Servers:
    """Servers of one deployment, one after the other or at once, with a state folder of their own."""

    def __init__(self, folder: Path, name: str, pool: str = "") -> None:
        self.folder = folder
        self.name = name
        self.toml = f'deployment = "{name}"\n[pool]\nwarm = 0\norphan_ttl = "{ORPHAN_TTL}s"\n{pool}\n'
        self.env = {"XDG_STATE_HOME": str(folder / "state"), "PATH": os.environ["PATH"]}

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[tuple[Client, int]]:
        async with serving(self.folder, self.toml, env=self.env) as opened:
            yield opened

    @property
    def files(self) -> list[Path]:
        return sorted((self.folder / "state/taskcell/deployments" / self.name).glob("*.json"))

    def keep_no_archives(self) -> None:
        """For tests in which two servers have one task: else the second begins with what the first one has saved."""
        self.env["TASKCELL__WORKSPACE__KEEP"] = "0"

    def unclaim(self) -> None:
        """Forget which server has which task: the next server that is asked has it too, with files of its own."""
        for claim in (self.folder / "state/taskcell/deployments" / self.name / "tasks").iterdir():
            claim.unlink()

    def _texts(self) -> Iterator[str]:
        for file in self.files:
            with suppress(FileNotFoundError):  # another server has just taken over what stood there
                yield file.read_text()

    def ids(self, api: docker.APIClient) -> list[str]:
        return containers(api, taskcell__deployment=self.name)

    def volumes(self, api: docker.APIClient) -> list[str]:
        found = api.volumes(filters={"label": f"taskcell.deployment={self.name}"})["Volumes"] or []
        return [str(volume["Name"]) for volume in found]

    async def written(self, holds: str, servers: int = 1) -> None:
        """Until so many servers have written down something that holds a text; each does so once a second."""
        seen = lambda: sum(holds in text for text in self._texts()) >= servers  # noqa: E731
        assert await anyio.to_thread.run_sync(eventually, seen), holds

    async def leave_by_kill(self, *commands: str, task: str = "t", servers: int = 1) -> None:
        """A server that runs commands and is then killed with SIGKILL, once it has written down what there is.

        Arguments:
            servers: how many have the task then.
        """
        if servers > 1:
            self.unclaim()
        with suppress(BaseExceptionGroup):  # the client's connection ends under it
            async with self.serve() as (client, pid):
                for command in commands:
                    await run(client, command, task)
                await self.written(f'"task": "{task}"', servers)
                os.kill(pid, signal.SIGKILL)


async def run(client: Client, command: str, task: str = "t") -> dict[str, Any]:
    with anyio.fail_after(HOST_TIMEOUT):
        return await fields(client, "terminal", {"command": command, "task_id": task})
