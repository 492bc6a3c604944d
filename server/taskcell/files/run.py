"""Runs `supervisor file` commands in a sandbox.

A reply comes from inside the sandbox: its size is bounded, and nothing in it counts as a fact about anything else.
"""

from __future__ import annotations

from collections.abc import Sequence

import anyio

from taskcell.errors import ErrorCode, FileRefused, SandboxLost, SpawnFailed
from taskcell.files.limits import MAX_REPLY
from taskcell.files.search import NO_PROGRAM, ProgramOutput
from taskcell.model import Command
from taskcell.policy.policy import AuthorizedCommand
from taskcell.process.process import Process
from taskcell.sandbox.sandbox import Sandbox
from taskcell.sandbox.spawn import GRACE
from taskcell.sandbox.wait import DEADLINE_SLACK
from taskcell.supervisor import protocol, requests
from taskcell.text import PATH_SHOWN, shown


async def run_file_command(sandbox: Sandbox, authorized: AuthorizedCommand) -> bytes:
    """Run one file command in the sandbox, once, and return its reply.

    On cancellation the command is killed first; this is shielded and bounded. Raises FileRefused if there is no whole
    reply, SandboxLost and SpawnFailed.
    """
    command = authorized.command
    request = _spawn_request(sandbox, command, (sandbox.container.supervisor, "file"), MAX_REPLY)
    return _reply(await _ended(sandbox, command, request), command)


async def run_program(sandbox: Sandbox, authorized: AuthorizedCommand, most: int) -> ProgramOutput:
    """Run one of the image's own programs in the sandbox, once, and return what it printed.

    On cancellation it is killed first; this is shielded and bounded. Raises SandboxLost and SpawnFailed.

    Arguments:
        most: bytes of output that are kept; it is ended when it has printed so many.
    """
    command = authorized.command
    try:
        process = await _ended(sandbox, command, _spawn_request(sandbox, command, (), most), most)
    except SpawnFailed as failed:
        if failed.no_room or failed.no_folder:
            raise
        return ProgramOutput(NO_PROGRAM, b"", b"", is_whole=True, timed_out=False)
    ended = process.exit
    assert ended is not None
    stdout = process.stdout.held
    return ProgramOutput(
        ended.exit_code,
        stdout,
        process.stderr.held,
        is_whole=len(stdout) == ended.stdout_total,
        timed_out=ended.reason is protocol.Reason.TIMEOUT,
    )


async def _ended(sandbox: Sandbox, command: Command, request: requests.Spawn, enough: int | None = None) -> Process:
    """Start a program and wait until it has ended, or was killed at its deadline, or for printing enough bytes."""
    process = Process(sandbox.channel, request.credit)
    try:
        await process.start(lambda _: request, command.stdin)
        with anyio.move_on_after(command.timeout + DEADLINE_SLACK) as backstop:
            if enough is not None:
                await _printed(process, enough)
            await process.finished()
        if backstop.cancelled_caught:
            sandbox.doom("its supervisor stopped answering")
            path = shown(command.text, PATH_SHOWN)
            raise SandboxLost(f"The sandbox does not answer; it is not known whether {path} was changed.")
    except anyio.get_cancelled_exc_class():
        await sandbox.kill(process)
        raise
    finally:
        process.close()
    return process


async def _printed(process: Process, enough: int) -> None:
    """Wait for a program's end, and kill it when it has printed enough. Raises SandboxLost and SpawnFailed."""
    await process.running()
    while not process.has_ended:
        if process.written[0] >= enough:
            await process.kill(GRACE)
        else:
            await process.news(process.written)


def _spawn_request(sandbox: Sandbox, command: Command, front: Sequence[str], most: int) -> requests.Spawn:
    """Use no environment and no shell, so that nothing that the task sets up reaches the command.

    Arguments:
        front: words before those of the command.
        most: bytes of output that are kept.
    """
    container = sandbox.container
    return requests.Spawn(
        argv=[word.encode("utf-8", "surrogateescape") for word in (*front, *command.argv)],
        env={},
        cwd=container.workspace.encode("utf-8", "surrogateescape"),
        user=b"" if container.user is None else container.user.encode(),
        flags=protocol.SpawnFlag.STDIN if command.stdin else protocol.SpawnFlag.NONE,
        timeout_ms=round(command.timeout * 1000),
        grace_ms=round(GRACE * 1000),
        spool=most,
        credit=most,
    )


def _reply(process: Process, command: Command) -> bytes:
    """Return all that the command wrote. Raises FileRefused if that cannot be a reply."""
    ended, path = process.exit, shown(command.text, PATH_SHOWN)
    assert ended is not None
    if ended.reason is protocol.Reason.TIMEOUT:
        raise FileRefused(
            f"{path}: the file system took longer than {command.timeout:g} s; try the terminal, which can wait.",
            code=ErrorCode.TIMEOUT,
        )
    if ended.oom_kills:
        full = f"{path} was not read or written: the sandbox's memory is used up; free some first."
        raise FileRefused(full, code=ErrorCode.NO_CAPACITY)
    if ended.exit_code != 0:
        killed = f"Something in the sandbox killed the file command; look at {path}, then try again."
        raise FileRefused(killed, code=ErrorCode.LOST)
    reply = process.stdout.held
    if len(reply) != ended.stdout_total:
        too_much = f"The sandbox had no room for the answer about {path}; read less at a time."
        raise FileRefused(too_much, code=ErrorCode.TOO_LARGE)
    return reply
