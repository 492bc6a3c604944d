"""Runs a command apart from the task's terminal: nothing before it changes it, and it changes nothing after it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import anyio

from taskcell.errors import BadArgument, ErrorCode, SandboxLost
from taskcell.policy.policy import AuthorizedCommand
from taskcell.process.held import HeldProcess
from taskcell.process.record import About, Record
from taskcell.sandbox.sandbox import Sandbox
from taskcell.supervisor import requests
from taskcell.supervisor.protocol import Reason

#: Seconds for the program to be executed or refused: the supervisor answers at once, on a busy machine within some.
START_PATIENCE = 30.0


@asynccontextmanager
async def running_apart(
    sandbox: Sandbox, authorized: AuthorizedCommand, process_id: str, *, is_line: bool = False, linger: float = 0.0
) -> AsyncIterator[tuple[Record, HeldProcess]]:
    """Start a command; it is killed, with everything that it started, if it has not ended when this is left.

    One that lingers is not: it is `is_handed_off` then, and whoever left it waits for its reader.

    Raises BadArgument when too many commands run, SpawnFailed when the program could not be started, SandboxLost,
    and EngineError when one of the profile's secrets cannot be read.

    Arguments:
        process_id: the command's name in its task.
        is_line: as in `Spawner.apart`.
        linger: seconds that it is to live on without its reader.
    """
    command = authorized.command
    sandbox.give_secrets()
    if sandbox.processes.running >= sandbox.max_processes:
        raise BadArgument(
            f"{sandbox.processes.running} commands run in this sandbox, and no more may at once: wait for one, or end "
            "one.",
            code=ErrorCode.NO_CAPACITY,
        )
    record = sandbox.processes.add(About.of(command, process_id, linger), 0, HeldProcess)
    process = record.process
    assert isinstance(process, HeldProcess)

    def make(number: int) -> requests.Spawn:
        return sandbox.spawner.apart(command, record.about.tag(), is_line=is_line, lingers=linger > 0)

    try:
        await process.start(make, command.stdin, more=command.takes_input)
        with anyio.fail_after(START_PATIENCE):
            await process.running()
    except BaseException as error:
        if not isinstance(error, Exception) or isinstance(error, TimeoutError):
            await sandbox.kill(process, Reason.CANCEL)
        sandbox.processes.remove(record)
        if isinstance(error, TimeoutError):
            raise SandboxLost("The sandbox does not answer; the command was ended.") from None
        raise
    try:
        yield record, process
    finally:
        if not process.has_ended and linger:
            record.is_handed_off = True
        elif not process.has_ended:
            await sandbox.kill(process, Reason.CANCEL)
        elif process.number in sandbox.channel.living:
            with suppress(SandboxLost):
                await sandbox.recount(record)
        sandbox.doom_for_survivors(process)
