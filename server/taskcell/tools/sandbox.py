"""The tool `sandbox`: shows, resets, closes or opens the sandboxes of a task, and copies its files."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import anyio.to_thread

from taskcell.config.settings import Settings
from taskcell.engine.base import Engine
from taskcell.environment import OF_TERMINAL, Environment
from taskcell.errors import BadArgument, SandboxLost, TaskcellError
from taskcell.files.answers import Picture
from taskcell.model import WORKSPACE, Command, TaskKey, ToolCall
from taskcell.pool.slot import Slot
from taskcell.schema.forms import ONLY_WHEN
from taskcell.schema.properties import MAX_TASK_ID, TASK_ID, object_schema, or_null, value_schema
from taskcell.tools.binding import task_key
from taskcell.tools.describe import NOT_NEGATIVE, NOTES, facts
from taskcell.tools.environments import allowed_names, check_opening, open_task, opening, profile_in
from taskcell.tools.tool import Access, BuiltIn, Tool, ToolAnnotations, ToolReport, Watch

SANDBOX = "sandbox"
#: Characters of patterns that a description may have: each is paid for in every request.
PATTERNS_SHOWN = 200
_DESCRIPTION = (
    "Show a task's sandbox, reset it when its processes or environment are broken, or close it when the task is done."
)
_ACTIONS = {
    "status": "state, processes, memory",
    "reset": f"fresh container, working directory and environment; {WORKSPACE} stays",
    "close": "end the task and delete its files",
}
#: The actions that copy a task's files, each with the argument that it needs.
COPIES = {"snapshot": "name", "restore": "name", "fork": "to"}
_COPIES = {
    "snapshot": "keep the files as `name`",
    "restore": "end what runs, put `name`'s files back",
    "fork": "make task `to` with the same files",
}
_OPEN = "start the task in another environment, before its first command"
_ONLY_OPEN = {ONLY_WHEN: {"action": ["open"]}}


def schema(settings: Settings) -> dict[str, Any]:
    """Return the input schema. What could only be refused is not in it."""
    names = allowed_names(settings)
    actions = {
        **_ACTIONS,
        **({} if settings.keeps_files else _COPIES),
        **({"open": _OPEN} if names or settings.policy.task_images else {}),
    }
    properties: dict[str, Any] = {
        "action": {
            "type": "string",
            "enum": list(actions),
            "description": " ".join(f"{name}: {what}." for name, what in actions.items()),
        },
        "task_id": TASK_ID,
    }
    if not settings.keeps_files:
        properties["name"] = _name("Snapshot.", "snapshot", "restore")
        properties["to"] = _name("New task.", "fork")
    if names:
        said = "What the terminal and file tools then work in."
        properties["environment"] = value_schema("string", said, enum=names, **_ONLY_OPEN)
    if settings.policy.task_images:
        allowed = ", ".join(settings.policy.task_images)
        said = f"Image to use, of these: {allowed if len(allowed) <= PATTERNS_SHOWN else 'see the refusal'}."
        properties["image"] = value_schema("string", said, minLength=1, **_ONLY_OPEN)
    return object_schema(properties, ["action"])


def _name(description: str, *actions: str) -> dict[str, Any]:
    fits = {ONLY_WHEN: {"action": list(actions)}}
    return value_schema("string", description, minLength=1, maxLength=MAX_TASK_ID, **fits)


SANDBOX_SCHEMA = object_schema(
    {
        "task_id": value_schema("string", "Name of the task."),
        "action": value_schema("string", "The action."),
        "sandboxes": {
            "type": "array",
            "description": "The task's sandboxes after the action.",
            "items": object_schema(
                {
                    "profile": value_schema("string", "terminal, one of its environments, or a skill."),
                    "container": value_schema("string", "Name of the container."),
                    "state": value_schema("string", "State, such as ready or lost."),
                    "age_s": value_schema("number", "Seconds since it was created.", **NOT_NEGATIVE),
                    "processes": value_schema("integer", "Processes running in it.", **NOT_NEGATIVE),
                    "memory_bytes": or_null("integer", "Memory in use, if the engine reports it."),
                }
            ),
        },
        "notes": NOTES,
    }
)


@dataclass(frozen=True, slots=True)
class SandboxAction:
    """A checked call of the tool `sandbox`. `name`: of the snapshot, or of the task that is to be made."""

    task: TaskKey
    action: Literal["status", "reset", "close", "open", "snapshot", "restore", "fork"]
    environment: Environment = OF_TERMINAL
    name: str = ""


@dataclass(frozen=True, slots=True)
class SandboxInfo:
    """One sandbox of a task. `age_s` in seconds, `memory_bytes` None if the engine does not report it."""

    profile: str
    container: str
    state: str
    age_s: float
    processes: int
    memory_bytes: int | None


@dataclass(frozen=True, slots=True)
class SandboxReport:
    """What the tool `sandbox` returns."""

    task_id: str
    action: str
    sandboxes: tuple[SandboxInfo, ...]
    notes: tuple[str, ...] = ()

    is_error: ClassVar[bool] = False
    pictures: ClassVar[tuple[Picture, ...]] = ()

    extent: ClassVar[int] = 0

    def cut(self, most: int) -> SandboxReport:
        return self

    def structured(self) -> dict[str, Any]:
        fields = ("profile", "container", "state", "age_s", "processes", "memory_bytes")
        return {
            "task_id": self.task_id,
            "action": self.action,
            "sandboxes": [{name: getattr(info, name) for name in fields} for info in self.sandboxes],
            "notes": list(self.notes),
        }

    def output(self) -> str:
        return ""

    def said(self) -> str:
        lines = [
            f"{info.profile}: {info.state}, container {info.container}, "
            f"{info.processes} process{'' if info.processes == 1 else 'es'}, "
            f"{'?' if info.memory_bytes is None else info.memory_bytes >> 20} MiB, up {info.age_s:.0f} s"
            for info in self.sandboxes
        ]
        return "\n".join([*lines, *self.notes]) or "The task has no sandbox; its next command creates one."


@dataclass(frozen=True, kw_only=True)
class SandboxTool(Tool):
    """The tool `sandbox`. It runs no command, but `open` and copies are judged as one of the environment's profile."""

    settings: Settings = field(repr=False)

    def check(self, call: ToolCall) -> Mapping[str, Any]:
        """As for every tool, but what no task can be opened with here is told with what to do. Raises BadArgument."""
        if isinstance(call.arguments, Mapping):  # a client may send anything, which the schema then refuses
            check_opening(self.settings, call.arguments, self.input_schema["properties"])
        return Tool.check(self, call)

    def bind(self, call: ToolCall) -> SandboxAction:
        """Check a call's arguments. Raises BadArgument."""
        values = self.check(call)
        environment = Environment(values.get("environment", ""), values.get("image", ""))
        action = values["action"]
        needed = COPIES.get(action)
        if needed is not None and not values.get(needed):
            raise BadArgument(f"sandbox: `{action}` needs `{needed}`.")
        return SandboxAction(task_key(call, values), action, environment, values[needed] if needed else "")

    def commands(self, call: ToolCall) -> Sequence[Command]:
        action = self.bind(call)
        if action.action == "open":
            return (opening(self.settings, action.task, action.environment, call.confirmed),)
        if action.action in COPIES:
            return (self._copying(action, action.environment, call.confirmed),)
        return ()

    def _copying(self, action: SandboxAction, environment: Environment, confirmed: frozenset[str]) -> Command:
        """Return what the policy judges of a copy. Raises BadArgument."""
        text = f"{action.action} {action.name}"
        return Command(action.task, self.name, profile_in(self.settings, environment), (), text, confirmed=confirmed)

    async def _copied(self, gateway: Access, action: SandboxAction, confirmed: frozenset[str]) -> list[str]:
        task, copies = action.task, gateway.copies
        environment = await gateway.environments.of(task)
        profile = gateway.authorize(self._copying(action, environment, confirmed)).profile
        if action.action == "snapshot":
            return await copies.snapshot(task, profile, action.name)
        if action.action == "fork":
            return await copies.fork(task, profile, TaskKey(task.principal, action.name))
        notes = await copies.restore(task, profile, action.name)
        gateway.file_history.forget(task)
        return notes

    async def run(self, gateway: Access, call: ToolCall, watch: Watch | None = None) -> ToolReport:
        action, pool = self.bind(call), gateway.pool
        notes = []
        if action.action == "reset":
            notes += await pool.reset(action.task) or ["The task had no sandbox; its next command creates one."]
        elif action.action == "open":
            environment, profile, said = await open_task(gateway, action.task, action.environment, call.confirmed)
            notes += [f"The task has {environment}. {facts(profile)}", *said]
        elif action.action == "close":
            await anyio.to_thread.run_sync(gateway.environments.forget, action.task)
            count = await pool.close_task(action.task)
            gateway.file_history.forget(action.task)
            if gateway.egress is not None and gateway.egress.questions is not None:
                gateway.egress.questions.forget(action.task)
            files = "are kept" if pool.keeps_files else "are deleted"
            notes.append(f"{count} sandbox{'' if count == 1 else 'es'} closed; the task's files {files}.")
        elif action.action in COPIES:
            notes += await self._copied(gateway, action, call.confirmed)
        slots = await pool.of_task(action.task)
        if action.action == "status":
            slots += pool.replaced(action.task)
        infos = [await _info(slot, gateway.engine) for slot in slots]
        return SandboxReport(action.task.task, action.action, tuple(infos), tuple(notes))


async def _info(slot: Slot, engine: Engine) -> SandboxInfo:
    sandbox, age = slot.sandbox, round(time.monotonic() - slot.created, 1)
    if sandbox is None:
        return SandboxInfo(slot.shared_key[1], "", slot.state.value, age, 0, None)
    processes, memory, state = 0, None, slot.state.value
    try:
        # An unknown count is that of one process at least.
        processes = sum(count or 1 for count in (await sandbox.alive()).values())
        memory = await engine.memory(sandbox.container)
    except SandboxLost:
        state = "lost"
    except TaskcellError:
        pass  # only the figure is missing
    return SandboxInfo(slot.shared_key[1], sandbox.container.name, state, age, processes, memory)


def sandbox_tool(settings: Settings) -> SandboxTool:
    """Create the tool. Its arguments depend on what tasks may be opened with."""
    return SandboxTool(
        name=SANDBOX,
        title="Sandbox",
        description=_DESCRIPTION,
        input_schema=schema(settings),
        output_schema=SANDBOX_SCHEMA,
        annotations=ToolAnnotations(read_only=False, destructive=True, idempotent=True, open_world=False),
        settings=settings,
    )


def _make(settings: Settings) -> Iterator[Tool]:
    yield sandbox_tool(settings)


BUILT_IN = BuiltIn(names=(SANDBOX,), make=_make, rank=3)
