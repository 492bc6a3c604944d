"""Files of a sandbox: runs `supervisor file` commands in it, and reads their replies.

A reply was written inside the sandbox: it is bounded, and believed to be no more than what a sandbox says.
"""

from __future__ import annotations

import struct

import anyio

from taskcell.errors import FileRefused, SandboxLost
from taskcell.files.answers import FileAnswer
from taskcell.files.reply import parse_reply
from taskcell.model import Command
from taskcell.policy.policy import AuthorizedCommand
from taskcell.process.process import Process
from taskcell.sandbox.sandbox import DEADLINE_SLACK, GRACE, KILL_SLACK, Sandbox
from taskcell.supervisor import protocol, requests
from taskcell.tools.files import MAX_REPLY


async def run_file_command(sandbox: Sandbox, authorized: AuthorizedCommand, output_chars: int) -> FileAnswer:
    """Run one file command in the sandbox and read its reply.

    Cancelled: the command is killed first (shielded, bounded). Raises FileRefused where the sandbox says no,
    SandboxLost and SpawnFailed. A command is never run twice.

    Arguments:
        output_chars: characters that an answer may show.
    """
    command = authorized.command
    process = Process(sandbox.channel, output_chars)
    try:
        await process.start(_spawn_request(sandbox, command), command.stdin)
        with anyio.move_on_after(command.timeout + DEADLINE_SLACK) as backstop:
            await process.finished()
        if backstop.cancelled_caught:
            sandbox.doomed = "its supervisor stopped answering"
            raise SandboxLost(f"The sandbox does not answer; whether {command.text} was changed is not known.")
        reply = _reply(process, command)
    except anyio.get_cancelled_exc_class():
        await _kill(sandbox, process)
        raise
    finally:
        process.close()
    try:
        return parse_reply(command, reply, output_chars)
    except (struct.error, IndexError):
        raise FileRefused(f"The sandbox's answer about {command.text} makes no sense; try the terminal.") from None


def _spawn_request(sandbox: Sandbox, command: Command) -> requests.Spawn:
    """No environment and no shell: nothing that a task sets up reaches the command."""
    container = sandbox.container
    return requests.Spawn(
        argv=[word.encode("utf-8", "surrogateescape") for word in (container.supervisor, "file", *command.argv)],
        env={},
        cwd=container.workspace.encode("utf-8", "surrogateescape"),
        user=b"" if container.user is None else container.user.encode(),
        flags=protocol.SpawnFlag.STDIN if command.stdin else protocol.SpawnFlag.NONE,
        timeout_ms=round(command.timeout * 1000),
        grace_ms=round(GRACE * 1000),
        spool=MAX_REPLY,
        credit=MAX_REPLY,
    )


def _reply(process: Process, command: Command) -> bytes:
    """All that the command wrote. Raises FileRefused when that is no reply."""
    ended = process.exit
    assert ended is not None
    if ended.reason is protocol.Reason.TIMEOUT:
        raise FileRefused(
            f"{command.text}: the file system took longer than {command.timeout:g} s; try the terminal, which may wait."
        )
    if ended.oom_kills:
        raise FileRefused(f"The sandbox's memory is used up: {command.text} was not read or written; free some first.")
    if ended.exit_code != 0:
        raise FileRefused(f"The sandbox could not deal with {command.text}: its file command was ended from outside.")
    reply = process.stdout.held
    if len(reply) != ended.stdout_total:
        raise FileRefused(f"The sandbox had no room for its answer about {command.text}; read less of it at once.")
    return reply


async def _kill(sandbox: Sandbox, process: Process) -> None:
    with anyio.move_on_after(GRACE + KILL_SLACK, shield=True) as bound:
        try:
            survivors = await process.kill(GRACE)
        except SandboxLost:
            return
        if survivors:
            sandbox.doomed = f"{survivors} of its processes survived the kill"
    if bound.cancelled_caught:
        sandbox.doomed = "its supervisor did not confirm the kill"
