"""What tasks are opened with: each task's environment, and the terminal and file tools as they are in it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import anyio.to_thread

from taskcell.config.settings import Settings
from taskcell.deployment.opened import OpenedTasks, Opening
from taskcell.environment import OF_TERMINAL, Environment
from taskcell.errors import BadArgument
from taskcell.model import Command, Profile, TaskKey
from taskcell.policy.policy import AuthorizedProfile, Policy
from taskcell.pool.pool import Pool
from taskcell.pool.reserved import reserve
from taskcell.profile.build import terminal_profile
from taskcell.text import shown
from taskcell.tools.catalog import terminal_tools
from taskcell.tools.tool import Access, Tool

#: Sets of tools that are held. Making one takes a few milliseconds.
MAX_SETS = 64


def profile_in(settings: Settings, environment: Environment) -> Profile:
    """Return the terminal's profile in an environment. Raises BadArgument: there is none of its name."""
    try:
        return terminal_profile(settings.in_environment(environment))
    except KeyError:
        raise BadArgument(_no_such(environment.name, settings)) from None


def _no_such(name: str, settings: Settings) -> str:
    names = ", ".join(f"'{known}'" for known in settings.environments)
    known = (
        f"there are {names}."
        if names
        else "none is configured: leave it out, or ask the person who runs the server to add it."
    )
    return f"There is no environment {shown(name)}; {known}"


def check_opening(settings: Settings, arguments: Mapping[str, object], properties: Mapping[str, object]) -> None:
    """Raise BadArgument: a call names an environment or image, and this server offers none.

    Arguments:
        properties: of the tool's schema, which has neither where none could be had.
    """
    name, image = (arguments.get(key) if key not in properties else None for key in ("environment", "image"))
    if isinstance(name, str) and name:
        if name not in settings.environments:
            raise BadArgument(_no_such(name, settings))
        raise BadArgument(
            f"The policy refuses the environment '{name}': leave it out, or ask the person who runs the server, to "
            "whom `taskcell skills check` says why."
        )
    if isinstance(image, str) and image:
        raise BadArgument(
            "A task cannot name its image here: leave `image` out, or ask the person who runs the server to allow it "
            "in policy.task_images."
        )


def tool_in(settings: Settings, environment: Environment, own: Tool) -> Tool:
    """Return a tool as it is in an environment. Raises BadArgument: there is none of its name."""
    profile_in(settings, environment)
    return terminal_tools(settings.in_environment(environment)).get(own.name, own)


def allowed_names(settings: Settings) -> list[str]:
    """Return the names of the environments that the policy does not refuse. Blocking where one mounts host folders."""
    policy, names = Policy(settings.policy), settings.environments
    return [name for name in names if not policy.refusals(profile_in(settings, Environment(name)))]


def can_open(settings: Settings) -> bool:
    """Whether a task can be opened with anything but the default."""
    return bool(settings.environments or settings.policy.task_images)


@dataclass(slots=True)
class Environments:
    """The environments of one server's tasks.

    Arguments:
        held: of tasks that have a sandbox, which settles it.
    """

    settings: Settings
    pool: Pool
    opened: OpenedTasks
    held: dict[TaskKey, Environment] = field(default_factory=dict)
    _tools: OrderedDict[Environment, Mapping[str, Tool]] = field(default_factory=OrderedDict)

    @property
    def is_on(self) -> bool:
        """A task may have another environment than the default."""
        return can_open(self.settings)

    async def of(self, task: TaskKey) -> Environment:
        """What the task was opened with, by this server or an earlier one. Raises what a call for its sandbox would."""
        if not self.is_on:
            return OF_TERMINAL
        if (held := self._settled(task)) is not None:
            return held
        await self.pool.of_task(task)  # what earlier servers know is known from then on
        found = (await anyio.to_thread.run_sync(self.opened.find, task)).environment
        if (held := self._settled(task)) is not None:  # another call has opened it meanwhile
            return held
        if found.name and found.name not in self.settings.environments:
            raise BadArgument(f"The task was opened with {found}, which is not configured any more; {_CLOSE}")
        self._hold(task, found)
        return found

    def _settled(self, task: TaskKey) -> Environment | None:
        """The environment of a task that has a sandbox; None where that is not known, or it has none."""
        return self.held.get(task) if any(slot.task == task for slot in self.pool.slots) else None

    def _hold(self, task: TaskKey, environment: Environment) -> None:
        there = {slot.task for slot in self.pool.slots}
        if len(self.held) > 2 * len(there) + MAX_SETS:
            self.held = {one: held for one, held in self.held.items() if one in there}
        self.held[task] = environment

    async def tool(self, own: Tool, task: TaskKey) -> Tool:
        """Return a tool as it is for a task: the terminal and file tools are of the task's environment."""
        if not self.is_on or not own.is_of_terminal:
            return own
        environment = await self.of(task)
        return own if environment.is_default else self.tools(environment).get(own.name, own)

    def tools(self, environment: Environment) -> Mapping[str, Tool]:
        """Return the tools that an environment changes, by name."""
        found = self._tools.get(environment)
        if found is None:
            found = self._tools[environment] = terminal_tools(self.settings.in_environment(environment))
            if len(self._tools) > MAX_SETS:
                self._tools.popitem(last=False)
        self._tools.move_to_end(environment)
        return found

    def profile_of(self, name: str, task: TaskKey) -> Profile | None:
        """Return the profile of an earlier server's sandbox, by its name; None for a skill's, and if there is none."""
        environment = Environment.of_profile(name) or self.opened.find(task).environment
        if environment.profile != name or (environment.name and environment.name not in self.settings.environments):
            return None
        return profile_in(self.settings, environment)

    async def open(self, task: TaskKey, wanted: Environment, profile: AuthorizedProfile) -> list[str]:
        """Start a task's sandbox in an environment, and note that the task has this one. Return notes for the answer.

        Raises BadArgument: the task has another one, or has had a command; and what a call for a sandbox raises.

        Arguments:
            profile: of the environment.
        """
        opened = await anyio.to_thread.run_sync(self.opened.find, task)
        before = await self.of(task)  # last: another call may open the task in any wait between this and the next line
        if wanted != before:
            if not before.is_default or await self.pool.has_begun(task):
                raise BadArgument(f"The task has {before} already, so it cannot be opened with {wanted}; {_CLOSE}")
            self._hold(task, wanted)
            await anyio.to_thread.run_sync(self.opened.note, task, replace(opened, environment=wanted))
        try:
            async with self.pool.lease(task, profile) as (sandbox, notes):
                reserve(self.pool, task, sandbox)
                return list(notes)
        except BaseException:
            # One that is still being made goes on, and is the task's.
            if wanted != before and all(slot.task != task for slot in self.pool.slots):
                self.forget(task)
                self.opened.note(task, opened)
            raise

    @asynccontextmanager
    async def passed_on(self, task: TaskKey, to: TaskKey) -> AsyncIterator[None]:
        """While this is entered, a new task is made that is opened with what another one was: its end is theirs."""
        environment = await self.of(task)
        opened = await anyio.to_thread.run_sync(self.opened.find, task)
        if opened != Opening():
            self._hold(to, environment)
            await anyio.to_thread.run_sync(self.opened.note, to, opened)
        try:
            yield
        except BaseException:
            if all(slot.task != to for slot in self.pool.slots):
                self.forget(to)
            raise

    def forget(self, task: TaskKey) -> None:
        """The task is closed; its next sandbox may be of any environment. Blocking, for a file of the disk."""
        self.held.pop(task, None)
        self.opened.forget(task)


def opening(settings: Settings, task: TaskKey, environment: Environment, confirmed: frozenset[str]) -> Command:
    """Return what the policy judges when a task is opened. Raises BadArgument: there is no such environment."""
    text = " ".join(filter(None, ("open", environment.name, environment.image)))
    return Command(task, "sandbox", profile_in(settings, environment), (), text, confirmed=confirmed)


async def open_task(
    gateway: Access, task: TaskKey, environment: Environment, confirmed: frozenset[str] = frozenset()
) -> tuple[Environment, Profile, list[str]]:
    """Open a task with an environment; with the default one, with what it has already.

    Returns what it has, the profile, and notes for the answer. Raises what `Environments.open` raises, and Denied.
    """
    environments = gateway.environments
    if environment.is_default:
        environment = await environments.of(task)
    authorized = gateway.authorize(opening(environments.settings, task, environment, confirmed))
    return environment, authorized.profile, await environments.open(task, environment, authorized.profile)


_CLOSE = "`sandbox` with the action 'close' ends the task and its files, or use another task_id."
