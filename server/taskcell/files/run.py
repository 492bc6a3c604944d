"""Runs `supervisor file` commands in a sandbox and reads their replies.

A reply comes from inside the sandbox: its size is bounded, and nothing in it counts as a fact about anything else.
"""

from __future__ import annotations

import struct

import anyio

from taskcell.errors import ErrorCode, FileRefused, SandboxLost
from taskcell.files.answers import FileAnswer
from taskcell.files.limits import MAX_REPLY
from taskcell.files.reply import parse_reply
from taskcell.model import Command
from taskcell.policy.policy import AuthorizedCommand
from taskcell.process.process import Process
from taskcell.sandbox.sandbox import Sandbox
from taskcell.sandbox.spawn import GRACE
from taskcell.sandbox.wait import DEADLINE_SLACK
from taskcell.supervisor import protocol, requests
from taskcell.text import PATH_SHOWN, shown


async def run_file_command(sandbox: Sandbox, authorized: AuthorizedCommand, output_chars: int) -> FileAnswer:
    """Run one file command in the sandbox, once, and read its reply.

    On cancellation the command is killed first; this is shielded and bounded. Raises FileRefused when the sandbox
    refuses, SandboxLost and SpawnFailed.

    Arguments:
        output_chars: characters that an answer may show.
    """
    command, path = authorized.command, shown(authorized.command.text, PATH_SHOWN)
    process = Process(sandbox.channel, output_chars)
    try:
        await process.start(lambda _: _spawn_request(sandbox, command), command.stdin)
        with anyio.move_on_after(command.timeout + DEADLINE_SLACK) as backstop:
            await process.finished()
        if backstop.cancelled_caught:
            sandbox.doom("its supervisor stopped answering")
            raise SandboxLost(f"The sandbox does not answer; it is not known whether {path} was changed.")
        reply = _reply(process, command)
    except anyio.get_cancelled_exc_class():
        await sandbox.kill(process)
        raise
    finally:
        process.close()
    try:
        return parse_reply(command, reply, output_chars)
    except (struct.error, IndexError):
        raise FileRefused(
            f"The sandbox's answer about {path} is garbled; try the terminal.", code=ErrorCode.LOST
        ) from None


def _spawn_request(sandbox: Sandbox, command: Command) -> requests.Spawn:
    """Use no environment and no shell, so that nothing that the task sets up reaches the command."""
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
