"""Slots of the pool with sandboxes that need no container: what tests of its decisions are made of."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, fields, replace

import anyio

from taskcell.config.policy_tables import PolicySettings
from taskcell.config.settings import Settings
from taskcell.engine.base import Container
from taskcell.model import Profile, Reuse, TaskKey
from taskcell.policy.policy import AuthorizedProfile, Policy
from taskcell.pool.slot import Lease, Slot, Step
from taskcell.pool.state import Slots
from taskcell.profile.build import terminal_profile
from taskcell.sandbox.sandbox import Sandbox
from taskcell.supervisor import events, protocol
from taskcell.supervisor.channel import Channel

NUMBERS = itertools.count()
SETTINGS = Settings()
POLICY = Policy(PolicySettings())
PROFILE = terminal_profile(SETTINGS)
AUTHORIZED = POLICY.authorize_profile(PROFILE)
ONCE = POLICY.authorize_profile(replace(PROFILE, kind="skill", entrypoint=("x",), reuse=Reuse.CALL))
CHANGED = POLICY.authorize_profile(replace(PROFILE, memory=PROFILE.memory // 2 if PROFILE.memory else None))


class OpenStream(anyio.abc.ByteStream):
    """A stream that says nothing: a channel over it is alive until it is told otherwise."""

    async def receive(self, max_bytes: int = 65536) -> bytes:
        await anyio.sleep_forever()
        raise anyio.EndOfStream

    async def send(self, item: bytes) -> None: ...

    async def send_eof(self) -> None: ...

    async def aclose(self) -> None: ...


def sandbox(profile: AuthorizedProfile) -> Sandbox:
    channel = Channel(b"t" * 32, 60)
    channel._link.welcome = events.Welcome(0, protocol.VERSION, protocol.WelcomeFlag(0), 0, 1, 0)
    channel._link._stream = OpenStream()
    channel.quiet_since = 0
    container = Container(
        f"id-{next(NUMBERS)}", "name", "/workspace", "/.taskcell/supervisor", "/run/taskcell.state", "1000:1000"
    )
    return Sandbox(profile, container, channel, output_chars=1000, spool=1000)


def named(profile: AuthorizedProfile, name: str) -> AuthorizedProfile:
    """The same profile under another name."""
    plain = {field.name: getattr(profile, field.name) for field in fields(Profile)}
    return POLICY.authorize_profile(Profile(**plain | {"name": name}))


def key(task: str = "t", profile: str = "terminal", principal: str = "local") -> tuple[TaskKey, str]:
    return TaskKey(principal, task), profile


@dataclass
class Asked:
    """A lease, and the first step that came of it."""

    lease: Lease
    step: Step | None

    @property
    def slot(self) -> Slot:
        assert self.lease.slot is not None
        return self.lease.slot

    @property
    def create(self) -> bool:
        return self.step is not None and self.step.create

    @property
    def check(self) -> bool:
        return self.step is not None and self.step.check

    @property
    def retired(self) -> Slot | None:
        return None if self.step is None else self.step.retired

    @property
    def evicted(self) -> tuple[Slot, ...]:
        return () if self.step is None else self.step.evicted


def ask(slots: Slots, wanted: tuple[TaskKey, str], profile: AuthorizedProfile = AUTHORIZED, now: float = 0) -> Asked:
    lease = slots.lease(wanted, profile)
    return Asked(lease, next(iter(slots.assign(now)), None))


def release(slots: Slots, asked: Asked, now: float) -> Step | None:
    return next(iter(slots.withdraw(asked.lease, now)), None)


def made(slots: Slots, asked: Asked) -> Slot:
    """The slot that was asked for, with its sandbox ready."""
    slots.ready(asked.slot, sandbox(asked.slot.profile))
    return asked.slot


def warm(slots: Slots, now: float = 0) -> Slot:
    """The next warm slot, with its sandbox ready."""
    (step,) = slots.next_warm(now)
    assert step.create
    slots.ready(step.slot, sandbox(step.slot.profile))
    return step.slot
