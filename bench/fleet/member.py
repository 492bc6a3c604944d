"""A server among the others: its Lease and the others', and what is left of one that has died."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from fleet import measured
from fleet.clock import nothing
from fleet.cluster import Pod, PodState
from taskcell.model import TaskKey

if TYPE_CHECKING:
    from fleet.server import Server


class Member:
    """Renews and looks until its server ends, each time so many seconds after the last answer."""

    def __init__(self, server: Server) -> None:
        self._server, self._fleet, self._cluster = server, server.fleet, server.fleet.cluster
        self._clock = server.fleet.clock
        self._renewed = self._clock.now
        #: Since when this server has seen a dead one's Lease stand as it is; and how often it has looked at it since.
        self._since: dict[str, float] = {}
        self._looks: Counter[str] = Counter()
        random = server.fleet.random
        self._clock.after(random.uniform(0, measured.RENEW_EVERY), self._renew)
        self._clock.after(random.uniform(0, measured.LOOK_EVERY), self._look)
        self._clock.after(random.uniform(0, measured.BUSY_EVERY), self._write_busy)

    # --- its own Lease -------------------------------------------------------------------------------------------

    def _renew(self) -> None:
        if self._server.lives:
            self._cluster.write(self._has_renewed)

    def _has_renewed(self) -> None:
        now = self._clock.now
        if self._server.lives:
            self._fleet.longest_renewal = max(self._fleet.longest_renewal, now - self._renewed)
            self._clock.after(measured.RENEW_EVERY, self._renew)
        self._renewed = now

    def _write_busy(self) -> None:
        """Write how busy each pod is that was used, one after the other."""
        if self._server.lives and self._server.busy:
            self._server.busy.popitem()
            self._cluster.write(self._write_busy)
        elif self._server.lives:
            self._clock.after(measured.BUSY_EVERY, self._write_busy)

    # --- the others' ---------------------------------------------------------------------------------------------

    def _look(self) -> None:
        if self._server.lives:
            asked = self._clock.now
            self._cluster.list_leases(len(self._fleet.servers), lambda: self._see(asked))

    def _see(self, asked: float) -> None:
        if not self._server.lives:
            return
        for name in list(self._fleet.dead):
            if asked - self._since.setdefault(name, asked) >= measured.LEASE_TERM:
                self._succeed(name)
        self._clock.after(measured.LOOK_EVERY, self._look)

    def _succeed(self, dead: str) -> None:
        """A server's Lease has run out. Every server lists its pods, and its tasks; those that it leads it takes."""
        self._fleet.take_for_dead(dead)
        self._looks[dead] += 1
        self._cluster.list_pods(lambda: self._inherit(dead))
        self._cluster.list_leases(0, nothing)

    def _inherit(self, dead: str) -> None:
        if not self._server.lives:
            return
        left = [pod for pod in self._cluster.pods if pod.owner == dead and pod.state is not PodState.ENDING]
        for pod in left:
            if pod.task is not None and self._fleet.owner(pod.task) == self._server.name:
                self._take(pod, pod.task, dead)
        if not left and self._looks[dead] >= measured.LOOKS:
            self._fleet.dead.pop(dead, None)

    def _take(self, pod: Pod, task: TaskKey, dead: str) -> None:
        """Take a dead server's task, and then its pod, if no other server is faster."""
        server = self._server
        if task in server.own:
            server.adopt(pod, dead)
            return

        def taken(wins: bool) -> None:
            if wins and server.lives:
                server.own[task] = self._clock.now
                server.adopt(pod, dead)

        self._cluster.seize(task, dead, server.name, taken)
