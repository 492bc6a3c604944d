"""What the pool's decisions ask of a sandbox, over a simulated pod."""

from __future__ import annotations

from collections.abc import Callable

from fleet.cluster import Pod
from taskcell.sandbox.sandbox import SandboxState


class Channel:
    """What the pool's decisions ask of a sandbox's channel. Commands are counted as leases here."""

    __slots__ = ("alive", "living", "quiet_since")

    def __init__(self) -> None:
        self.alive, self.living, self.quiet_since = True, (), 0.0


class Cell:
    """What the pool's decisions ask of a sandbox."""

    __slots__ = ("channel", "doomed", "pod", "processes")

    def __init__(self, pod: Pod) -> None:
        self.pod, self.channel, self.processes = pod, Channel(), ()
        self.doomed: str | None = None

    @property
    def usable(self) -> bool:
        return self.doomed is None

    @property
    def state(self) -> SandboxState:
        return SandboxState.READY if self.doomed is None else SandboxState.CLOSED


class Granted:
    """In the place of the event that a waiting call sleeps on."""

    __slots__ = ("set",)

    def __init__(self, then: Callable[[], None]) -> None:
        self.set = then
