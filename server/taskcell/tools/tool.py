"""What a tool is: what a client reads about it, and what one call of it does and answers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from taskcell.config.settings import Settings
from taskcell.engine.base import Engine
from taskcell.files.answers import Picture
from taskcell.model import Command, ProcessResult, Profile, ToolCall
from taskcell.policy.policy import AuthorizedCommand
from taskcell.pool.pool import Pool
from taskcell.process.process import Process
from taskcell.schema.arguments import Arguments

#: Called with the process that a call starts, or looks at.
Watch = Callable[[Process], None]


class Report(Protocol):
    """What a call answers, whatever the door is."""

    @property
    def is_error(self) -> bool:
        """The call did not do what it was asked for."""

    @property
    def pictures(self) -> Sequence[Picture]:
        """What is shown beside the text."""

    def structured(self) -> dict[str, Any] | None:
        """JSON-ready values of the tool's output schema; None where there are none."""

    def text(self) -> str:
        """The answer as a model reads it."""


class Access(Protocol):
    """The gateway as tools see it. Nothing that `authorize` has not allowed gets a sandbox or runs in one."""

    @property
    def pool(self) -> Pool: ...

    @property
    def engine(self) -> Engine: ...

    def authorize(self, command: Command) -> AuthorizedCommand:
        """Allow a command and its profile. Raises Denied."""

    async def run(self, command: Command, watch: Watch | None = None) -> ProcessResult:
        """Authorise a command and run it in its task's sandbox. Raises a TaskcellError when it did not run."""


@dataclass(frozen=True, slots=True)
class ToolAnnotations:
    """Hints for a client on what a tool may do; not a promise."""

    read_only: bool
    destructive: bool
    idempotent: bool
    open_world: bool


@dataclass(frozen=True, kw_only=True)
class Tool(ABC):
    """One tool. Two are equal if a client could not tell them apart and their calls do the same.

    Arguments:
        input_schema, output_schema: JSON Schema, draft 2020-12, without references.
        profile: what shapes the sandbox that its calls run in; None if they need none of their own.
    """

    name: str
    title: str
    description: str
    input_schema: Mapping[str, Any]
    output_schema: Mapping[str, Any]
    annotations: ToolAnnotations
    profile: Profile | None = None
    _arguments: Arguments = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_arguments", Arguments(self.input_schema))

    def check(self, call: ToolCall) -> Mapping[str, Any]:
        """A call's arguments, if they are what the input schema says. Raises BadArgument."""
        return self._arguments.check(self.name, call.arguments)

    def commands(self, call: ToolCall) -> Sequence[Command]:
        """What the policy's rules judge of a call; nothing if it runs no command. Raises BadArgument."""
        return ()

    @abstractmethod
    async def run(self, gateway: Access, call: ToolCall, watch: Watch | None = None) -> Report:
        """Do what a call asks for. Raises a TaskcellError when that was not possible."""


@dataclass(frozen=True, slots=True)
class BuiltIn:
    """Tools of taskcell's own. A module of this package that has some says so in its `BUILT_IN`.

    Arguments:
        names: what they are called; no skill may take these names.
        make: makes them, in the order of their names.
        rank: where `tools/list` has them: lower ranks first.
    """

    names: tuple[str, ...]
    make: Callable[[Settings], Iterable[Tool]]
    rank: int
