"""A bash on a terminal in a task, driven as SWE-ReX drives one: commands, input for programs that ask, interrupts.

`script` of the image makes the terminal. A command comes as a file that the shell evaluates, because a terminal cuts
lines off at 4,096 bytes, and its end is reported by a descriptor, never by a marker in its output. The prompt, which
has a random word and the command's number, says only up to where the terminal's output is the command's.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, suppress

from swerex.exceptions import (
    BashIncorrectSyntaxError,
    CommandTimeoutError,
    NoExitCodeError,
    NonZeroExitCodeError,
    SessionNotInitializedError,
    SwerexException,
)
from swerex.runtime.abstract import BashAction, BashInterruptAction, BashObservation

from taskcell.client.failures import CellError
from taskcell.client.process import RunningCommand
from taskcell.client.task import Task
from taskcell.integrations.exact_files import SCRIPT_ENV
from taskcell.integrations.terminal_output import TerminalOutput

#: Seconds for a shell to show its first prompt on a busy machine.
SHELL_START_TIMEOUT = 60.0
#: Seconds at least that a program may take for an interrupt or a stop: less, and a busy machine looks like a program
#: that takes none.
INTERRUPT_TIMEOUT = 1.0
#: Seconds for a shell to go on when its program is killed.
KILL_TIMEOUT = 20.0
#: The descriptor by which the shell reports. Programs seldom use one so high, and few limits are below it.
_REPORTS = 251
_ON_TERMINAL = f'exec {_REPORTS}>&2; exec script -qc "$1" /dev/null'
_QUIET = "stty -echo -onlcr"
_SHELL = f"{_QUIET} rows 24 cols 80; exec /usr/bin/env bash --noediting"
_KEEP_AND_CHECK = 'umask 077; cat > "$1"; exec bash -n "$1"'
#: Kills the terminal's foreground process group, which `/proc` names, and waits until the shell has taken note of it.
_FOREGROUND = 'read -r line < "/proc/$1/stat"; set -- ${line##*)}; echo "$6"'
_KILL_GROUP = 'kill -9 -- "-$1"; for i in $(seq 200); do kill -0 -- "-$1" 2>/dev/null || exit 0; sleep 0.05; done'


class BashSession:
    """A shell that is open between `open` and `close`."""

    def __init__(self, task: Task, name: str) -> None:
        self._task = task
        self._name = name
        self._word = secrets.token_hex(8)
        self._file = f"/tmp/.taskcell-{self._word}"  # noqa: S108 - in the sandbox, which has one user
        self._step = 0
        self._is_busy = False
        self._has_input = False
        self._terminal = TerminalOutput()
        self._changed = asyncio.Event()
        self._held = AsyncExitStack()
        self._reader: asyncio.Task[None] | None = None
        self._ended = ""

    @property
    def has_ended(self) -> bool:
        """Whether the shell is gone, so that nothing more can be run in it."""
        return bool(self._ended)

    async def open(self, sources: Sequence[str], source_timeout: float, cwd: str, env: dict[str, str]) -> str:
        """Start the shell, and return what the sources wrote. Raises SessionNotInitializedError, CommandTimeoutError.

        Arguments:
            sources: files that it reads first.
            source_timeout: seconds for them.
        """
        words = ["bash", "-c", _ON_TERMINAL, "bash", _SHELL]
        variables = {"TERM": "dumb", **env}
        running = await self._held.enter_async_context(self._task.start(words, stdin=None, cwd=cwd, env=variables))
        self._running = running
        self._reader = asyncio.create_task(self._read(running))
        self._is_busy = True
        await self._type(f"{self._set_up()}; __rex_step=0")
        if await self._outcome([], SHELL_START_TIMEOUT) is None:
            raise CommandTimeoutError(f"The shell of session {self._name!r} shows no prompt.")
        if not sources:
            return ""
        lines = [*(f"source {path}" for path in sources), self._set_up()]
        action = BashAction(command="\n".join(lines), timeout=source_timeout, check="ignore")
        found = await self.run(action)
        return str(found.output)

    def _set_up(self) -> str:
        """What a shell is told at first, and after files that may have set its prompt."""
        report = f'printf "%s %s %s\\n" "$__rex_step" "$__rex_code" "$$" >&{_REPORTS}'
        return (
            f"PS1='{self._word}:$__rex_step:' PS2= PS0= PROMPT_COMMAND='__rex_code=$?; {report}'; "
            f"__rex_last() {{ return $__rex_code; }}"
        )

    async def close(self) -> None:
        """End the shell, with everything that it started."""
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.wait([self._reader])
        with suppress(CellError):
            await self._held.aclose()

    # --- commands ----------------------------------------------------------------------------------------------

    async def run(self, action: BashAction) -> BashObservation:
        """As `TaskcellRuntime.run_in_session`."""
        if not self._is_busy:
            await self._begin(action.command)
        elif action.is_interactive_command or action.is_interactive_quit:
            self._has_input = True
            await self._type(action.command)
        else:
            raise SwerexException(
                f"A command still runs in session {self._name!r}. Interrupt it, or send it input by "
                "is_interactive_command."
            )
        found = await self._outcome(action.expect, action.timeout)
        if found is None:
            raise CommandTimeoutError(f"timeout after {action.timeout} seconds while running {action.command!r}")
        if not self._is_busy and self._has_input:
            await self._quieten()
        if action.is_interactive_command:
            found.output = found.output.lstrip().removeprefix(action.command).strip()
        if action.is_interactive_command or action.is_interactive_quit:
            found.exit_code = 0
            return found
        return self._checked(action, found)

    def _checked(self, action: BashAction, found: BashObservation) -> BashObservation:
        if action.check == "ignore":
            found.exit_code = None
        if action.check != "raise" or found.exit_code == 0:
            return found
        if found.exit_code is None:
            raise NoExitCodeError(f"Command {action.command!r} goes on: {found.expect_string!r} was expected of it.")
        said = (
            f"Command {action.command!r} failed with exit code {found.exit_code}. Here is the output:\n{found.output!r}"
        )
        raise NonZeroExitCodeError(f"{action.error_msg}: {said}" if action.error_msg else said)

    async def _begin(self, command: str) -> None:
        """Have the shell evaluate a command. Raises BashIncorrectSyntaxError."""
        self._is_busy = True  # from now on, for another command may be asked for meanwhile
        try:
            await self._keep(command)
        except BaseException:
            self._is_busy = False
            raise
        await self._next_step(f'__rex_line=$(<{self._file}); __rex_last; eval "$__rex_line"')

    async def _keep(self, command: str) -> None:
        words = ["bash", "-c", _KEEP_AND_CHECK, "bash", self._file]
        done = await self._task.run(words, stdin=command.encode(errors="surrogateescape"), env=SCRIPT_ENV)
        if not done.ok:
            out, err = (data.decode(errors="backslashreplace") for data in (done.stdout, done.stderr))
            about = {"bash_stdout": out, "bash_stderr": err}
            raise BashIncorrectSyntaxError(f"bash does not take {command!r}:\n{err}{out}", extra_info=about)

    async def _next_step(self, line: str) -> None:
        self._step += 1
        self._is_busy, self._has_input = True, False
        await self._type(f"__rex_step={self._step}; {line}")

    async def _quieten(self) -> None:
        """Turn echo off: programs that ask turn it on, and some leave it so."""
        await self._next_step(_QUIET)
        if await self._outcome([], KILL_TIMEOUT) is None:
            raise CommandTimeoutError(f"The shell of session {self._name!r} does not go on.")

    # --- interrupts --------------------------------------------------------------------------------------------

    async def interrupt(self, action: BashInterruptAction) -> BashObservation:
        """End what runs by ^C, else by a stop and a kill. Raises CommandTimeoutError."""
        if not self._is_busy:
            return BashObservation(exit_code=0)
        seconds = max(action.timeout, INTERRUPT_TIMEOUT)
        for _ in range(action.n_retry):
            await self._running.write(b"\x03")
            if (found := await self._outcome(action.expect, seconds)) is not None:
                break
        else:
            found = await self._kill(seconds)
        if found is None:
            raise CommandTimeoutError(f"What runs in session {self._name!r} could not be interrupted.")
        found.exit_code, found.output = 0, found.output.strip()
        return found

    async def _kill(self, seconds: float) -> BashObservation | None:
        """Stop what the terminal has in front, as ^Z does, and kill it."""
        shell = str(self._terminal.reports[0].shell)
        group = (await self._task.run(["bash", "-c", _FOREGROUND, "bash", shell], env=SCRIPT_ENV)).stdout.strip()
        await self._running.write(b"\x1a")
        found = await self._outcome([], seconds)
        if group.decode() != shell:
            await self._task.run(["bash", "-c", _KILL_GROUP, "bash", group.decode()], env=SCRIPT_ENV)
        return found or await self._outcome([], KILL_TIMEOUT)

    # --- the terminal ------------------------------------------------------------------------------------------

    async def _type(self, line: str) -> None:
        await self._running.write(line.encode(errors="surrogateescape") + b"\n")

    async def _read(self, running: RunningCommand) -> None:
        try:
            async for piece in running:
                take = self._terminal.add if piece.stream == "stdout" else self._terminal.add_report
                take(piece.data)
                self._changed.set()
            done = await running.wait()
            self._ended = f"has ended ({done.status}, exit code {done.exit_code})"
        except CellError as error:
            self._ended = f"is lost: {error}"
        self._changed.set()

    async def _outcome(self, expected: Sequence[str], timeout: float | None) -> BashObservation | None:  # noqa: ASYNC109
        """Wait for the end of the step or for output that is expected; None: neither came in time.

        Raises SessionNotInitializedError when the shell has ended.
        """
        patterns = [re.compile(text.encode(), re.DOTALL) for text in expected]
        try:
            async with asyncio.timeout(timeout):
                return await self._until(lambda: self._expected(patterns) or self._at_prompt())
        except TimeoutError:
            return None

    async def _until(self, look: Callable[[], BashObservation | None]) -> BashObservation:
        while True:
            self._changed.clear()
            if (found := look()) is not None:
                return found
            if self._ended:
                said = self._terminal.take(len(self._terminal.output), 0) + self._terminal.unread.decode(
                    errors="replace"
                )
                raise SessionNotInitializedError(
                    f"The shell of session {self._name!r} {self._ended}. Its last output: {said!r}. Create it anew."
                )
            await self._changed.wait()

    def _expected(self, patterns: Sequence[re.Pattern[bytes]]) -> BashObservation | None:
        matches = [found for pattern in patterns if (found := pattern.search(self._terminal.output))]
        if not matches:
            return None
        first = min(matches, key=lambda found: found.start())
        output = self._terminal.take(first.start(), first.end())
        return BashObservation(output=output, expect_string=first.re.pattern.decode())

    def _at_prompt(self) -> BashObservation | None:
        report = self._terminal.reports.get(self._step)
        prompt = f"{self._word}:{self._step}:"
        if report is None or (at := self._terminal.output.find(prompt.encode())) < 0:
            return None
        self._is_busy = False
        output = self._terminal.take(at, at + len(prompt))
        return BashObservation(output=output, exit_code=report.exit_code, expect_string=prompt)
