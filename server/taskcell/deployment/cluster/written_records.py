"""What others read of a server's sandboxes: what is written about each, and what is still to be."""

from __future__ import annotations

from collections.abc import Sequence

import anyio

from taskcell.deployment.cluster.owned_pods import OwnedPods, essence
from taskcell.deployment.records import SandboxRecord


class WrittenRecords:
    """Those of one server."""

    def __init__(self, pods: OwnedPods) -> None:
        self._pods = pods
        self._writing = anyio.Lock()
        self._wanted: dict[str, SandboxRecord] = {}
        self._written: dict[str, SandboxRecord] = {}

    def want(self, records: Sequence[SandboxRecord]) -> None:
        """Replace what `flush` is to write."""
        self._wanted = {record.container: record for record in records}

    def take(self, records: Sequence[SandboxRecord]) -> None:
        """Learn what stands in a pod that has become this server's, so that it is not erased before `want`."""
        taken = {record.container: record for record in records}
        self._written |= taken
        self._wanted |= taken

    async def flush(self, *, everything: bool) -> None:
        """Write what has changed; with `everything` how busy sandboxes are, too. Raises TaskcellError."""
        async with self._writing:
            for container, wanted in list(self._wanted.items()):
                before = self._written.get(container)
                if before is None or essence(before) != essence(wanted) or (everything and before != wanted):
                    await self._pods.write(wanted)
                    self._written[container] = wanted
            for container in [one for one in self._written if one not in self._wanted]:
                await self._pods.erase(container)
                del self._written[container]
