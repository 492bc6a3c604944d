"""Keeps the offer of a server true: tools that cannot run are not offered until they can.

A skill's tool cannot run while the policy refuses its profile, or while the engine does not have its image and no
registry has it either. The engine is asked in the background, and what it said is kept in the deployment's folder, so
that the next server knows it at once. taskcell's own tools are always offered: without them a model could not say what
is missing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import anyio
import anyio.to_thread
import structlog

from taskcell.assembly import stack
from taskcell.config.image_reference import NAME_PREFIX
from taskcell.config.settings import Settings
from taskcell.deployment import state_files
from taskcell.engine.base import Engine
from taskcell.errors import TaskcellError
from taskcell.gateway.gateway import Gateway
from taskcell.images import skills as skill_images
from taskcell.model import Profile
from taskcell.policy.policy import Policy
from taskcell.skills.manifest import LeftOut
from taskcell.tools.catalog import profiles
from taskcell.tools.tool import Tool

log = structlog.get_logger(__name__)

#: Seconds between two looks: a person who has built an image tries it soon, and a look costs 2 ms for each image.
LOOK_INTERVAL = 3.0
#: Seconds that the engine has for one look; a slower one is looked at again later.
LOOK_TIMEOUT = 10.0
#: The same before changed manifests are used: an engine that hangs should not hold them up.
REPLACE_TIMEOUT = 2.0
#: Looks in a row that must miss an image that was there: a build replaces it, and an engine may be restarting.
MISSES = 2
#: Bytes; more than a thousand names of images.
_MAX_FILE = 1 << 18
_FILE = "images-there"


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Why tools cannot run: the end of a sentence about them, and what the operator does."""

    why: str
    mend: str

    def __str__(self) -> str:
        return f"{self.why}; {self.mend}"


def left_out_reasons(left_out: Iterable[LeftOut]) -> dict[str, Obstacle]:
    """Return why the tools of skills that cannot be used are not there."""
    return {
        name: Obstacle("; ".join(skill.reasons), "change the skill, or what it lacks, and start the server again")
        for skill in left_out
        for name in skill.tool_names
    }


def reasons(tools: Mapping[str, Tool], policy: Policy, missing: Iterable[str]) -> dict[str, Obstacle]:
    """Return why tools of skills cannot run, by name.

    Arguments:
        missing: images that the engine does not have.
    """
    absent = set(missing)
    found: dict[str, Obstacle] = {}
    for name, profile in profiles(tools).items():
        why = _refusal(policy, profile) if profile.kind == "skill" else None
        if why is None and profile.kind == "skill" and profile.image in absent:
            why = image_missing(profile.image)
        if why is not None:
            found[name] = why
    return {
        tool.name: found[tool.profile.name]
        for tool in tools.values()
        if tool.profile is not None and tool.profile.name in found
    }


def _refusal(policy: Policy, profile: Profile) -> Obstacle | None:
    refusals = policy.refusals(profile)
    if not refusals:
        return None
    told = "; ".join(dict.fromkeys(refusal.reason.rstrip(".") for refusal in refusals))
    return Obstacle(
        f"the policy refuses the skill: {told}",
        "change the skill, or [policy]; `taskcell skills check` names every key",
    )


def image_missing(reference: str) -> Obstacle:
    """Return what is to be said about an image that the engine does not have."""
    command = skill_images.build_command(reference)
    mend = f"build it with `{command}`" if command else "correct its name: no command builds an image of that name"
    return Obstacle(f"the image {reference} is not on the engine", mend)


def only_built(tools: Mapping[str, Tool]) -> set[str]:
    """Return the images of skills that no registry has, so that they must be on the engine already."""
    return {
        profile.image
        for profile in profiles(tools).values()
        if profile.kind == "skill" and profile.image.startswith(NAME_PREFIX)
    }


async def look(engine: Engine, references: Iterable[str]) -> set[str]:
    """Return those images that the engine does not have. Raises a TaskcellError if it cannot say."""
    if engine.images is None:
        return set()
    return {reference for reference in sorted(references) if await engine.images.image_labels(reference) is None}


@dataclass
class Offer:
    """What is known about the images of one server's tools, and what follows for its offer."""

    gateway: Gateway
    settings: Settings
    policy: Policy
    state: Path | None
    #: The images that are known to be there, and for those that were there the looks in a row that missed them.
    there: set[str] = field(default_factory=set)
    misses: dict[str, int] = field(default_factory=dict)
    _said: dict[str, str] = field(default_factory=dict)
    _turn: anyio.Lock = field(default_factory=anyio.Lock)

    async def begin(self) -> None:
        """Offer what an earlier server of the deployment knew to run, until `keep` has asked the engine."""
        self.there = self._read()
        self.gateway.offer_known = anyio.Event()
        await self._renew(self.gateway.tools)
        if not any(map(self.gateway.may_call, self.gateway.tools)):
            log.warning("[tools] leaves no tool for clients; change 'only' or 'hide'.")
        # Of images it can say nothing yet.
        refused = reasons(self.gateway.tools, self.policy, ())
        self._say({name: str(obstacle) for name, obstacle in refused.items()})

    async def keep(self) -> None:
        """Look at the images now and again, for ever."""
        while True:
            if await self._look(only_built(self.gateway.tools), LOOK_TIMEOUT):
                async with self._turn:
                    # The tools of now: others may have come while the engine was asked.
                    self._say(await self._renew(self.gateway.tools))
            if self.gateway.offer_known is not None:
                self.gateway.offer_known.set()  # or as well known as it can be, where the engine is away
            await anyio.sleep(LOOK_INTERVAL)

    async def replace(self, tools: Mapping[str, Tool]) -> None:
        """Use other tools from now on, and offer those of them that can run."""
        if unknown := only_built(tools) - self.there:
            await self._look(unknown, REPLACE_TIMEOUT)
        async with self._turn:
            self._say(await self._renew(tools))

    async def _renew(self, tools: Mapping[str, Tool]) -> Mapping[str, str]:
        """Offer those of the tools that can run. Return why others cannot."""
        missing = only_built(tools) - self.there if self.gateway.engine.images is not None else set()
        # In a thread: the policy looks at host folders.
        why = await anyio.to_thread.run_sync(partial(reasons, tools, self.policy, missing), abandon_on_cancel=True)
        withheld = {name: str(reason) for name, reason in why.items()}
        self.gateway.replace_tools(tools, withheld)
        return withheld

    async def _look(self, wanted: set[str], seconds: float) -> bool:
        """Ask the engine for images. Return whether it has answered; what was known stays otherwise."""
        try:
            with anyio.fail_after(seconds):
                missing = await look(self.gateway.engine, wanted)
        except (TaskcellError, TimeoutError):
            return False
        except Exception:  # whatever it is: a fault in the look at images must not end the server
            log.exception("The engine could not be asked for images; what was known stays.")
            return False
        self._learn(wanted - missing, missing)
        return True

    def _learn(self, there: set[str], missing: set[str]) -> None:
        before = set(self.there)
        self.there |= there
        self.misses = {image: self.misses.get(image, 0) + 1 for image in missing & self.there}
        self.there -= {image for image, count in self.misses.items() if count >= MISSES}
        if self.there != before:
            self._write()

    def _say(self, spelled: Mapping[str, str]) -> None:
        """Log each reason once, with all tools that it concerns."""
        news: dict[str, list[str]] = {}
        for name, reason in spelled.items():
            if self._said.get(name) != reason:
                news.setdefault(reason, []).append(name)
        for reason, names in news.items():
            log.info("Tools are not offered.", tools=names, reason=reason)
        can_run = sorted(name for name in self._said if name not in spelled and name in self.gateway.tools)
        if can_run:
            log.info("Tools are offered from now on.", tools=can_run)
        self._said = dict(spelled)

    def _read(self) -> set[str]:
        if self.state is None:
            return set()
        with suppress(OSError, ValueError, RecursionError):
            found = json.loads(state_files.read_own(self.state / _FILE, _MAX_FILE))
            if isinstance(found, list):
                return {name for name in found if isinstance(name, str)}
        return set()

    def _write(self) -> None:
        if self.state is None:
            return
        names: Sequence[str] = sorted(self.there)
        with suppress(OSError):  # only the next server's first moment is poorer
            state_files.own_folder(self.state)
            state_files.replace(self.state / _FILE, json.dumps(names).encode())


def offer_of(gateway: Gateway, settings: Settings, state: Path | None) -> Offer:
    """Return the offer of a gateway. `state` is the deployment's folder; None keeps nothing."""
    return Offer(gateway, settings, stack.policy_of(settings, state), state)
