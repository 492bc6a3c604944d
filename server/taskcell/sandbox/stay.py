"""A bash that stays: functions, variables and options of one command are there for the next.

It is interactive, so that SIGINT ends a command and not the shell, and has no terminal, so that its streams are bytes.
Its commands and the report of each one's end go through two named pipes, which a second process joins to the channel:
neither is in the shell's own input or output, and no command holds a descriptor of either.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import anyio

from taskcell.errors import BadArgument, ErrorCode, SandboxLost, TaskcellError
from taskcell.process.held import HELD_WINDOW, HeldProcess
from taskcell.process.process import Totals
from taskcell.sandbox.sandbox import Sandbox
from taskcell.sandbox.spawn import GRACE
from taskcell.supervisor.protocol import SpawnFlag, Stream

SIGINT = 2
#: Seconds for the two processes to start, on a busy machine.
SHELL_START_PATIENCE = 30.0
#: Seconds for a command to go to the shell: it is taken at once but by one that is stopped.
COMMAND_PATIENCE = 30.0
#: Seconds for a command that was interrupted, or whose caller has just gone, to end before the next one is refused.
TURN_PATIENCE = 1.0
#: Interrupts before a shell is killed: the first may come just when the shell has forked, and bash drops it then.
INTERRUPTS = 2
#: Bytes of one report; what a sandbox sends beyond that is none.
MAX_SHELL_REPORT = 256
#: Makes the pipes, prints their folder, and joins them to its own input and output.
_JOIN = """\
d=$(mktemp -d /tmp/.shell-XXXXXXXXXX) && chmod "$1" "$d" && mkfifo -m "$2" "$d/commands" "$d/reports" || exit
trap 'rm -r "$d"' EXIT
trap exit TERM
exec 3<>"$d/commands" 4<>"$d/reports"
printf '%s\\n' "$d"
cat <&4 & cat >&3
kill $!
"""
#: Becomes the shell. What bash says about having no terminal is of no use to anybody.
_BECOME = 'exec 6>&2 2>/dev/null 7<&0 0<"$1/commands"; PS1= PS2= exec bash --norc --noprofile --noediting -i'
_FIRST = """\
exec 2>&6 6>&-; set +H +o history +o monitor; declare +x PS1 PS2; __taskcell_end() {{ \
[[ $__taskcell_told == "$1" ]] && return; __taskcell_told=$1 __taskcell_code=$2 __taskcell_last=$3; \
builtin printf '%d %d %s\\n' "$1" "$2" "$-" >|{reports} && [[ /proc/$$/fd/0 -ef {commands} ]] || builtin exit 125; \
case $- in *x*) set +x;; esac; case $- in *v*) set +v;; esac; }}
__taskcell_back() {{ return "$__taskcell_code"; }}; readonly -f __taskcell_end __taskcell_back; __taskcell_code=0
"""
#: Gives `$?` and `$_` the values that the last command has left.
_BACK = '{ __taskcell_back "$__taskcell_last"; } >/dev/null 2>&1'


def joining(is_anybodys: bool) -> tuple[str, ...]:
    """The words that make the pipes and join them.

    Arguments:
        is_anybodys: the shell is of another user, and opens them by their name, which is random and cannot be listed.
    """
    return ("bash", "-c", _JOIN, "bash", *(("711", "666") if is_anybodys else ("700", "600")))


def becoming(folder: str) -> tuple[str, ...]:
    """The words that start the shell. `folder` is that of the pipes."""
    return ("bash", "-c", _BECOME, "bash", folder)


def _first(folder: str) -> str:
    """The first line of a shell. One that has lost its own input ends at once, and does not wait for ever."""
    return _FIRST.format(reports=shlex.quote(f"{folder}/reports"), commands=shlex.quote(f"{folder}/commands"))


@dataclass(frozen=True, slots=True)
class ShellEnd:
    """How a command of a shell has ended. `code` None: the shell has ended under it."""

    code: int | None
    timed_out: bool = False


@asynccontextmanager
async def joined_pipes(sandbox: Sandbox, *, is_anybodys: bool) -> AsyncIterator[tuple[PipeLines, str]]:
    """Start the process that joins the pipes; yield what it prints, and their folder. It ends when this is left.

    Raises SpawnFailed (there is no bash), SandboxLost, TaskcellError. Arguments as those of `joining`.
    """
    process, spawner = HeldProcess(sandbox.channel, 0), sandbox.spawner
    flags = SpawnFlag.STDIN | SpawnFlag.HOLD
    request = spawner.request(joining(is_anybodys), spawner.first_env(), "/", flags, math.inf)
    request = replace(request, spool=HELD_WINDOW, credit=HELD_WINDOW)
    try:
        await process.start(lambda _: request, more=True)
        lines = PipeLines(process)
        try:
            with anyio.fail_after(SHELL_START_PATIENCE):
                folder = await lines.next()
        except TimeoutError:
            raise SandboxLost("The sandbox does not answer; the shell was not started.") from None
        if not folder.startswith("/"):
            raise TaskcellError("The sandbox has no room for a shell's pipes in /tmp, or no mktemp and mkfifo.")
        yield lines, folder
    finally:
        with anyio.CancelScope(shield=True):  # bounded by the kill itself
            if not process.has_ended and process.failed is None:
                await sandbox.kill(process)
        process.close()


class PipeLines:
    """What a process prints, by lines. It comes from inside the sandbox: any bytes, and never too many."""

    def __init__(self, process: HeldProcess) -> None:
        self.process = process
        self._held = b""

    async def next(self) -> str:
        """The next line; empty when there is none any more. Raises SpawnFailed, SandboxLost."""
        while b"\n" not in self._held:
            piece = await self.process.receive()
            if piece is None or len(self._held) > MAX_SHELL_REPORT:
                return ""
            if piece[0] is Stream.STDOUT:
                self._held += piece[1]
        line, _, self._held = self._held.partition(b"\n")
        return line.decode("utf-8", "replace")


class StayingShell:
    """One shell, which runs one command at a time.

    Arguments:
        process: the shell itself.
        pipes: of `joined_pipes`.
        folder: of the pipes.
    """

    def __init__(self, sandbox: Sandbox, process: HeldProcess, pipes: PipeLines, folder: str) -> None:
        self._sandbox = sandbox
        self._process = process
        self._pipes = pipes
        self._folder = folder
        self._number = 0
        self._busy = self._given_up = False
        self._idle = anyio.Event()
        self._flags = ""
        self._code = 0
        self._told: Totals | None = None
        self._timed_out = self._is_broken = False

    async def begin(self) -> None:
        """Wait until it takes commands. Raises SandboxLost, TaskcellError."""
        await self._send(_first(self._folder))
        end = await self._run("", SHELL_START_PATIENCE, _drop)
        if end.code is None:
            raise TaskcellError("The shell did not start: bash in this sandbox ended at once.")

    async def run(self, line: str, seconds: float, emit: Callable[[Stream, bytes], Awaitable[None]]) -> ShellEnd:
        """Run a line; hand its output on while it runs. A caller that is cancelled interrupts it.

        Raises BadArgument when another one runs and stays, SandboxLost, and what `emit` raises.

        Arguments:
            seconds: until it is interrupted; a shell that does not take that is killed.
        """
        if self._busy:
            with anyio.move_on_after(TURN_PATIENCE):
                await self._idle.wait()
        if self._given_up:
            await self._idle.wait()  # which is bounded: a shell that does not take its interrupt is killed
        if self._busy:
            raise BadArgument(
                "The shell runs a command; wait for its end, or interrupt it.", code=ErrorCode.NO_CAPACITY
            )
        return await self._run(line, seconds, emit)

    async def _run(self, line: str, seconds: float, emit: Callable[[Stream, bytes], Awaitable[None]]) -> ShellEnd:
        self._busy, self._idle, self._told, self._timed_out = True, anyio.Event(), None, False
        self._number += 1
        options = "".join(f"set -{flag}\n" for flag in "xv" if flag in self._flags)
        failed: Exception | None = None
        try:
            # On one line, so that a command that closes the shell's own input cannot keep its end from being told.
            # The second line is for a command that interrupts its own shell, which then drops the rest of the first.
            command = f"\\eval {shlex.quote(options + line)} <&7 7<&-"
            await self._send(f"{_BACK}; {command}; {self._report}\n{self._report}\n")
            async with anyio.create_task_group() as listening:
                listening.start_soon(self._listen)
                listening.start_soon(self._bound, seconds)
                try:
                    while (piece := await self._process.receive_until(self._is_told)) is not None:
                        await emit(*piece)
                except Exception as error:  # raised below: the task group would wrap it into an exception group
                    failed = error
                listening.cancel_scope.cancel()
        finally:
            await self._settle()
        if failed is not None:
            raise failed
        if self._is_broken:
            await self._sandbox.kill(self._process)
            raise SandboxLost("Something in the sandbox ended the pipes of this shell, so it was ended too.")
        return ShellEnd(None if self._told is None else self._code, self._timed_out)

    def _is_told(self) -> Totals | None:
        return (0, 0) if self._is_broken else self._told

    async def _listen(self) -> None:
        """Wait for the report of the command's end, and for how much was written until then."""
        try:
            while True:
                words = (await self._pipes.next()).split(" ")
                if words == [""]:
                    self._is_broken = True
                    break
                if words[0] == str(self._number) and len(words) > 1 and words[1].isascii() and words[1].isdigit():
                    self._code, self._flags = int(words[1]) & 255, words[2] if len(words) > 2 else ""
                    self._told = await self._process.written_so_far()
                    break
        except TaskcellError:
            self._is_broken = True
        self._process.wake()

    async def _bound(self, seconds: float) -> None:
        await anyio.sleep(seconds)
        self._timed_out = True
        for _ in range(INTERRUPTS):
            await self.interrupt()
            await anyio.sleep(GRACE)
        await self._sandbox.kill(self._process)

    async def _settle(self) -> None:
        """After a cancellation: end what runs, or the shell with it. Shielded and bounded."""
        try:
            if self._told is None and not self._is_broken and not self._process.has_ended:
                self._given_up = True
                with anyio.CancelScope(shield=True):
                    for _ in range(INTERRUPTS):
                        await self.interrupt()
                        with anyio.move_on_after(GRACE):
                            await self._listen()
                        if self._told is not None or self._is_broken:
                            return
                    await self._sandbox.kill(self._process)
        finally:
            self._busy = self._given_up = False
            self._idle.set()

    async def _send(self, text: str) -> None:
        data = text.encode("utf-8", "surrogateescape")
        if await self._pipes.process.input.write(data, COMMAND_PATIENCE) < len(data):
            await self._sandbox.kill(self._process)
            raise SandboxLost("The shell takes no more commands, so it was ended.")

    @property
    def _report(self) -> str:
        """What reports the end of the command that runs, once. A shell without a descriptor left for that ends.

        The user's traps run in it, too, so that its output is nobody's.
        """
        return f'{{ __taskcell_end {self._number} "$?" "$_"; }} >/dev/null 2>&1 || builtin exit 125'

    async def interrupt(self) -> None:
        """As ^C in a terminal; nothing happens while no command runs. Raises SandboxLost."""
        if self._busy and self._told is None:
            await self._process.signal(SIGINT)
            # The shell drops the rest of the line that it interrupts, and what it has begun to read of the next.
            await self._send(f"\n{self._report}\n")


async def _drop(stream: Stream, data: bytes) -> None:
    """What bash says when it starts."""
