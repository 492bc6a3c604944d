"""What a tool is: what a client reads about it, what a call of it does, and what a call returns."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from taskcell.config.settings import Settings
from taskcell.egress.egress import Egress
from taskcell.engine.base import Engine
from taskcell.files.answers import Picture
from taskcell.files.history import FileHistory
from taskcell.model import Command, ProcessResult, Profile, ToolCall
from taskcell.policy.policy import AuthorizedCommand
from taskcell.pool.copies import Copies
from taskcell.pool.pool import Pool
from taskcell.process.process import Process
from taskcell.schema.arguments import Arguments

if TYPE_CHECKING:
    from taskcell.tools.environments import Environments

#: Called with the process that a call starts or inspects.
Watch = Callable[[Process], None]


class ToolReport(Protocol):
    """What a call returns, whatever door it came through."""

    @property
    def is_error(self) -> bool:
        """Whether the client should treat the answer as a failure."""

    @property
    def pictures(self) -> Sequence[Picture]:
        """Pictures to show before the text."""

    def output(self) -> str:
        """Return what the program printed, a file's text or a listing, for a model; empty if there is none."""

    def said(self) -> str:
        """Return what taskcell says: one line on the call, and notes."""

    def structured(self) -> dict[str, Any] | None:
        """Return JSON-ready values that match the tool's output schema, or None if there are none."""

    @property
    def extent(self) -> int:
        """How much output there is, in the unit that `cut` counts in: characters, or entries."""

    def cut(self, most: int) -> ToolReport:
        """Return the report with at most so much of its output, and with the remark that there is more."""


class Access(Protocol):
    """The gateway as a tool sees it. The types let nothing into a sandbox that `authorize` has not allowed."""

    @property
    def pool(self) -> Pool: ...

    @property
    def copies(self) -> Copies: ...

    @property
    def engine(self) -> Engine: ...

    @property
    def file_history(self) -> FileHistory: ...

    @property
    def environments(self) -> Environments: ...

    @property
    def egress(self) -> Egress | None: ...

    def authorize(self, command: Command) -> AuthorizedCommand:
        """Allow a command and its profile. Raises Denied."""

    def tools_with(self, program: str, image: str) -> Sequence[str]:
        """Return the names of the offered tools that have a program or Python module, in another image than `image`."""

    async def run(self, command: Command, watch: Watch | None = None) -> ProcessResult:
        """Authorise a command and run it in its task's sandbox. Raises a TaskcellError if it did not run."""


@dataclass(frozen=True, slots=True)
class ToolAnnotations:
    """Hints for clients about what a tool may do. They are not a promise."""

    read_only: bool
    destructive: bool
    idempotent: bool
    open_world: bool


@dataclass(frozen=True, kw_only=True)
class Tool(ABC):
    """One tool. Two tools are equal if they look the same to a client and their calls do the same.

    Arguments:
        input_schema, output_schema: JSON Schemas, draft 2020-12, without references.
        profile: shapes the sandbox that the calls run in; None if they need no sandbox of their own.
        programs: programs and Python modules that its image is known to have.
    """

    name: str
    title: str
    description: str
    input_schema: Mapping[str, Any]
    output_schema: Mapping[str, Any]
    annotations: ToolAnnotations
    profile: Profile | None = None
    programs: frozenset[str] = frozenset()
    _arguments: Arguments = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_arguments", Arguments(self.input_schema))

    @property
    def is_of_terminal(self) -> bool:
        """What it does depends on the terminal's profile, and so on what its task was opened with."""
        return self.profile is not None and self.profile.kind == "terminal"

    def check(self, call: ToolCall) -> Mapping[str, Any]:
        """Return a call's arguments. Raises BadArgument if they do not match the input schema."""
        return self._arguments.check(self.name, call.arguments)

    def commands(self, call: ToolCall) -> Sequence[Command]:
        """Return the commands that the policy's rules judge for this call. Raises BadArgument."""
        return ()

    @abstractmethod
    async def run(self, gateway: Access, call: ToolCall, watch: Watch | None = None) -> ToolReport:
        """Do what the call asks for. Raises a TaskcellError if that is impossible."""


@dataclass(frozen=True, slots=True)
class BuiltIn:
    """Some of taskcell's own tools. A module of this package declares the tools that it has as its `BUILT_IN`.

    Arguments:
        names: the tools' names, which no skill may take.
        make: creates the tools, in the order of `names`.
        rank: position in `tools/list`; lower ranks come first.
    """

    names: tuple[str, ...]
    make: Callable[[Settings], Iterable[Tool]]
    rank: int
