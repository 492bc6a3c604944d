"""Commands whose output a door hands on whole, for programs: through the same policy, lease and audit as tool calls."""

from __future__ import annotations

import math
import shlex
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial

import anyio

from taskcell.audit.log import AuditFailed
from taskcell.environment import TERMINAL
from taskcell.errors import Denied, ErrorCode, ReadElsewhere, TaskcellError, UnknownProcess
from taskcell.gateway.gateway import Gateway
from taskcell.model import Command, Profile, TaskKey, ToolCall
from taskcell.process.held import HeldProcess
from taskcell.process.record import Record
from taskcell.sandbox.apart import running_apart
from taskcell.sandbox.sandbox import Sandbox
from taskcell.spans import span
from taskcell.tools.binding import ProgramTool
from taskcell.tools.process_calls import find_process
from taskcell.tools.terminal import ShellLine


@dataclass(frozen=True, slots=True)
class WantedRun:
    """What a program asks to run.

    Arguments:
        argv: the program and its arguments; or, with `line`, nothing.
        line: a line for the task's shell.
        stdin: its whole input; None: it stays open.
        user: whom it runs as; empty: whom the environment names.
        timeout: seconds; `math.inf`: as long as its sandbox.
        linger: seconds that it lives on when it is left; 0: it is killed then.
    """

    argv: Sequence[str] = ()
    line: str | None = field(default=None, repr=False)
    text: str = ""
    stdin: bytes | None = field(default=b"", repr=False)
    workdir: str | None = None
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    user: str = ""
    timeout: float = math.inf
    linger: float = 0.0


@dataclass(frozen=True, slots=True)
class Apart:
    """A command that runs, and where. `notes` on the sandbox."""

    sandbox: Sandbox
    record: Record
    process: HeldProcess
    notes: Sequence[str]


@asynccontextmanager
async def apart(gateway: Gateway, task: TaskKey, wanted: WantedRun) -> AsyncIterator[Apart]:
    """Authorise a command and start it in its task's sandbox. It is killed if it runs when this is left, or lingers.

    Raises a TaskcellError if the command did not start.
    """
    call = ToolCall(task.principal, TERMINAL, {"task_id": task.task})
    if not gateway.may_call(TERMINAL):
        raise TaskcellError("This server offers no terminal, so nothing runs.", code=ErrorCode.PERMISSION_DENIED)
    gateway.trail.begin()
    began, outcome = time.monotonic(), "refused"
    try:
        await gateway.check_here(task)
        tool = await gateway.tool_of(TERMINAL, task)
        authorized = gateway.authorize(command_of(tool, task, wanted))
        with span("lease", tool=TERMINAL):
            lease = gateway.pool.lease(task, authorized.profile)
        async with lease as (sandbox, notes):
            outcome = "failed"
            process_id = gateway.pool.next_process_id(task)
            gateway.awaited[task, process_id] = sandbox
            try:
                is_line = wanted.line is not None
                running = running_apart(sandbox, authorized, process_id, is_line=is_line, linger=wanted.linger)
                async with running as (record, process):
                    yield Apart(sandbox, record, process, notes)
                    outcome = "done"
            except BaseException:
                with suppress(AuditFailed):  # it fails anyway
                    gateway.note_end(task, sandbox, process_id)
                raise
            finally:
                gateway.awaited.pop((task, process_id), None)
                _keep(gateway, task, sandbox, process_id)
            gateway.note_end(task, sandbox, process_id)
    except Denied:
        outcome = "denied"
        raise
    except anyio.get_cancelled_exc_class():
        outcome = "cancelled"
        raise
    finally:
        for observe in gateway.observers:
            observe(call, outcome, time.monotonic() - began)


def _keep(gateway: Gateway, task: TaskKey, sandbox: Sandbox, process_id: str) -> None:
    """Have a process that was left wait for its reader."""
    record = sandbox.processes.get(process_id)
    if record is None or not record.is_handed_off or record.process.has_ended:
        return
    serving = AsyncExitStack()
    serving.enter_context(gateway.pool.holding(task, sandbox, serves=True))
    end = partial(gateway.ended, task, record, closed=False, was_awaited=False)
    gateway.background.keep(serving, sandbox, record, end)


@asynccontextmanager
async def read_by_one(gateway: Gateway, task: TaskKey, run: Apart) -> AsyncIterator[None]:
    """Be the only reader of a command that lingers.

    Raises ReadElsewhere: another has come, or this server ends and leaves the command to the others.
    """
    key = (task, run.record.about.process_id)
    async with run.process.reader() as patience:
        gateway.awaited[key] = run.sandbox
        try:
            yield
        finally:
            gateway.awaited.pop(key, None)
    if patience.cancelled_caught:
        raise ReadElsewhere


@asynccontextmanager
async def taken_up(gateway: Gateway, task: TaskKey, process_id: str) -> AsyncIterator[Apart]:
    """A command that lingers, which another request has started, here or at a server that has ended.

    Raises UnknownProcess: there is none of this name that ever lingered.
    """
    await gateway.check_here(task)
    sandbox, record = await find_process(gateway.pool, task, process_id)
    process = record.process
    if not isinstance(process, HeldProcess) or not record.about.linger:
        raise UnknownProcess("That process was not started to be taken up; `process` reads its output.")
    with gateway.pool.holding(task, sandbox):
        yield Apart(sandbox, record, process, ())


def command_of(tool: object, task: TaskKey, wanted: WantedRun) -> Command:
    """Return what the policy judges: a command of the task's terminal."""
    assert isinstance(tool, ProgramTool)
    assert isinstance(tool.binding, ShellLine)
    argv = tuple(wanted.argv) if wanted.line is None else (*tool.binding.shell, wanted.line)
    user, text = _other_user(wanted.user, tool.profile), wanted.text
    if user and tool.profile.sudo:
        # The variables by their names alone: others see the words.
        kept = (f"--preserve-env={','.join(wanted.env)}",) if wanted.env else ()
        argv, text = ("sudo", *kept, "-u", user, "--", *argv), f"sudo -u {shlex.quote(user)} -- {text}"
        user = ""
    return Command(
        task,
        TERMINAL,
        tool.profile,
        argv,
        text,
        stdin=wanted.stdin,
        workdir=wanted.workdir,
        env=wanted.env,
        timeout=wanted.timeout,
        background=True,
        user=user,
    )


def _other_user(user: str, profile: Profile) -> str:
    """Return whom a command is to run as, if that is another one than the profile's user."""
    return "" if user in ("", profile.user, profile.user.partition(":")[0]) else user
