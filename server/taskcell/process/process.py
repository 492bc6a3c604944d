"""One process of a sandbox, as the server sees it: start, stdin, output and end."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable

import anyio

from taskcell.errors import ErrorCode, SandboxLost, SpawnFailed, TaskcellError
from taskcell.process.listener import Asked, Listener
from taskcell.process.masks import Masks
from taskcell.process.stdin import Input
from taskcell.supervisor import events, protocol, requests
from taskcell.supervisor.channel import ANSWER_TIMEOUT, Channel
from taskcell.supervisor.protocol import Stream
from taskcell.text import MESSAGE_SHOWN, shown

#: What a failed start means to the caller, by stage.
_FAILED = {
    protocol.FailedStage.REQUEST: "The sandbox refused to start the command",
    protocol.FailedStage.FORK: "The sandbox has no room for one more process",
    protocol.FailedStage.USER: "The sandbox cannot run commands as this user",
    protocol.FailedStage.CWD: "The working directory cannot be used",
    protocol.FailedStage.EXEC: "The program could not be started",
    protocol.FailedStage.PTY: "The sandbox cannot open a terminal",
}

_TOLD_APART = (protocol.FailedStage.CWD, protocol.FailedStage.FORK, protocol.FailedStage.EXEC)
#: By Linux's error numbers: ENOENT, ENOTDIR; EPERM, EACCES; E2BIG.
_CODES = dict.fromkeys((2, 20), ErrorCode.NOT_FOUND) | dict.fromkeys((1, 13), ErrorCode.PERMISSION_DENIED)
_CODES[7] = ErrorCode.TOO_LARGE

#: Bytes of stdout and of stderr.
Totals = tuple[int, int]


class Process(Listener):
    """One process, with the requests that concern it.

    A call makes it, `start`s it, and waits until it has `finished`. It captures the head of its output until `let_go`;
    what the supervisor keeps of the output can be `read` at any time until `close`.

    Arguments:
        output_chars, on_end, masks: as in `Listener`.
    """

    def __init__(
        self,
        channel: Channel,
        output_chars: int,
        on_end: Callable[[], None] | None = None,
        masks: Masks | None = None,
    ) -> None:
        super().__init__(Input(channel), output_chars, on_end, masks)
        self._channel = channel
        self._began = time.monotonic()
        self.number = 0
        #: How long a call waits for its end.
        self.patience = anyio.CancelScope()

    # --- how things stand --------------------------------------------------------------------------------------

    @property
    def has_ended(self) -> bool:
        """Its main process has ended and, if it was killed, the survivors are counted; or it is lost."""
        if self.exit is None or (self.exit.reason is not protocol.Reason.ITSELF and self.killed is None):
            return self.lost is not None
        return True

    @property
    def duration_ms(self) -> int:
        if self.exit is not None:
            return round(self.exit.duration_us / 1000)
        return round((time.monotonic() - self._began) * 1000)

    @property
    def written(self) -> Totals:
        """The bytes written to stdout and stderr, as far as the server knows."""
        last = self.killed or self.exit
        if last is not None:
            return max(last.stdout_total, self._written[0]), max(last.stderr_total, self._written[1])
        return self._written[0], self._written[1]

    def totals(self) -> Totals:
        """Return the bytes of each stream that a result accounts for: all of them after the end, else the captured."""
        last = self.killed or self.exit
        if last is None:
            return self.stdout.end, self.stderr.end
        return last.stdout_total, last.stderr_total

    @property
    def is_away(self) -> bool:
        """Its sandbox is not connected now, and may be again."""
        return self._channel.is_away

    async def back(self) -> None:
        """Wait until its sandbox is connected, or is lost."""
        await self._channel.back(or_lost=True)

    # --- its life ----------------------------------------------------------------------------------------------

    async def start(
        self, make: Callable[[int], requests.Spawn], stdin: bytes | None = None, *, more: bool = False
    ) -> None:
        """Send the request to start it. Raises SandboxLost; a failed start is raised by `finished`.

        Arguments:
            make: makes the request for the number that the process gets.
            stdin: the first bytes of its standard input.
            more: keep its standard input open after them.
        """
        self.number = self._channel.add(self)
        request = make(self.number)
        self._began = time.monotonic()
        self._credit = [request.credit, request.credit]
        is_bulk = protocol.SpawnFlag.BULK_INPUT in request.flags
        window = protocol.BULK_WINDOW if is_bulk else protocol.STDIN_WINDOW
        given = self.input.begin(self.number, stdin or b"", is_open=more, window=window)
        await self._channel.send(requests.spawn(self.number, request) + given)

    def take_up(self, listed: events.ListedProcess, *, stdin_open: bool) -> None:
        """Listen to a process that an earlier connection started."""
        self.number = listed.process
        self._channel.listen(self, listed.process)
        self._began = time.monotonic() - listed.age_ms / 1000
        self._written = [listed.stdout_total, listed.stderr_total]
        self.input.begin(listed.process, is_open=stdin_open)
        self.let_go()
        if listed.state is protocol.ProcessState.RUNNING:
            self.spawned = events.Spawned(listed.process, listed.pid)
            return
        totals = (listed.stdout_total, listed.stderr_total)
        ending = (listed.reason, listed.exit_code, listed.signal, listed.oom_kills, listed.duration_us)
        self.exit = events.Exit(listed.process, *ending, 0, 0, 0, *totals, 0, 0, 0, b"")
        if listed.reason is not protocol.Reason.ITSELF:
            self.killed = events.Killed(listed.process, listed.reason, listed.survivors, *totals)
        self._tell_end()

    async def ended(self) -> events.Exit:
        """Wait for the main process's end. Raises SpawnFailed, SandboxLost."""
        while self.exit is None:
            self._check_started()
            await self._change().wait()
        return self.exit

    async def over(self) -> None:
        """Wait for its end, of whatever kind."""
        while not self.has_ended:
            await self._change().wait()

    async def running(self) -> None:
        """Wait until the program was executed. Raises SpawnFailed, SandboxLost."""
        while self.spawned is None and self.exit is None:
            self._check_started()
            await self._change().wait()

    def _check_started(self) -> None:
        """Raises SpawnFailed, SandboxLost."""
        if self.failed is not None:
            stage, why = self.failed.stage, shown(self.failed.message, MESSAGE_SHOWN)
            no_folder, no_room, no_program = (stage is one for one in _TOLD_APART)
            said = f"{_FAILED[stage]}: {why}."
            code = ErrorCode.PERMISSION_DENIED if stage is protocol.FailedStage.USER else _CODES.get(self.failed.errno)
            raise SpawnFailed(said, no_folder=no_folder, no_room=no_room, no_program=no_program, code=code)
        self._check_heard()

    def _check_heard(self) -> None:
        """Raises SandboxLost."""
        if self.lost is not None:
            raise SandboxLost(f"The sandbox is gone: {self.lost}.")

    async def finished(self) -> None:
        """Feed stdin and wait for the end, and after a kill for its count. Raises SpawnFailed, SandboxLost.

        It may be called again after a cancellation: stdin goes on where it stopped.
        """
        if self.input.is_fed:
            await self._finish()
            return
        error: TaskcellError | None = None
        async with anyio.create_task_group() as feeding:
            feeding.start_soon(self.input.feed)
            try:
                await self._finish()
            except TaskcellError as failure:  # raised below: the task group would wrap it into an exception group
                error = failure
            feeding.cancel_scope.cancel()
        if error is not None:
            raise error

    async def _finish(self) -> None:
        if (await self.ended()).reason is not protocol.Reason.ITSELF:
            await self._kill_counted()

    async def _kill_counted(self) -> events.Killed:
        while self.killed is None:
            self._check_heard()
            await self._change().wait()
        return self.killed

    async def kill(self, grace: float, reason: protocol.Reason = protocol.Reason.KILL) -> int | None:
        """Kill the whole tree and return the number of survivors; None if it is unknown. Raises SandboxLost.

        Arguments:
            grace: seconds between TERM and KILL.
            reason: KILL or CANCEL; what it is killed for first counts.
        """
        if self.failed is not None or self.number == 0:
            return 0
        if self.killed is None or self.exit is None or self.exit.reason is protocol.Reason.ITSELF:
            self.killed = None
            await self._channel.send(requests.kill(self.number, math.ceil(grace * 1000), reason))
        return (await self._kill_counted()).survivors

    def close(self) -> None:
        """Stop listening; the supervisor forgets the process when its tree is gone."""
        if self.number:
            self._channel.remove(self.number)
            self._channel.forget_soon(self.number)
            self.number = 0
            self.on_lost("it is no longer remembered")

    # --- its signals and its terminal --------------------------------------------------------------------------

    async def signal(self, number: int) -> None:
        """Send a signal to the main process's group. Raises SandboxLost."""
        await self._channel.send(requests.signal(self.number, number))

    async def resize(self, rows: int, cols: int) -> None:
        """Set its terminal's size. Raises SandboxLost."""
        await self._channel.send(requests.resize(self.number, rows, cols))

    # --- its output --------------------------------------------------------------------------------------------

    async def read(self, stream: Stream, cursor: int, size: int) -> events.Data:
        """Read a piece of what the supervisor keeps, at most READ_MAX bytes. Raises SandboxLost.

        Secrets in it are masked: what stands around it is looked at for that, so that it may be a shorter piece.
        """
        if not self.masks or not size:
            return await self._read(stream, cursor, size)
        reach, at = self.masks.reach, None if cursor == protocol.FROM_THE_END else cursor
        first = cursor if at is None else max(0, at - reach)
        wanted = min(protocol.READ_MAX, size + (reach if at is None else at - first + reach))
        found = self.masks.cut(await self._read(stream, first, wanted), at, size)
        if found.data or at is None or found.stream is None or at >= found.total:
            return found
        return self.masks.cut(await self._read(stream, at, size), at, size)

    async def _read(self, stream: Stream, cursor: int, size: int) -> events.Data:
        self._check_heard()
        async with self._channel.reading:
            asked = Asked()
            self._asked = self._asked or deque()
            self._asked.append(asked)
            await self._channel.send(requests.read(self.number, stream, cursor, size))
            await self._channel.comes(asked.answered, ANSWER_TIMEOUT)
        if asked.data is None:
            raise SandboxLost(f"The sandbox is gone: {self.lost or 'its supervisor does not answer'}.")
        return asked.data

    async def fetch_tails(self) -> Totals:
        """Capture the tail of each stream that is longer than its captured head, and return both lengths.

        Output that a running process writes meanwhile is left out. Raises SandboxLost.
        """
        totals = list(self.totals())
        for index, (stream, capture) in enumerate(zip(Stream, (self.stdout, self.stderr), strict=True)):
            if self.exit is None and capture.received >= capture.head_bytes:
                totals[index] = (await self.read(stream, protocol.FROM_THE_END, 0)).total
            cursor = max(capture.received, totals[index] - capture.tail_bytes)
            while cursor < totals[index]:
                piece = await self.read(stream, cursor, min(protocol.READ_MAX, totals[index] - cursor))
                if not piece.data:
                    break
                capture.add(piece.offset, piece.data)
                cursor = piece.offset + len(piece.data)
        return totals[0], totals[1]

    async def news(self, seen: Totals) -> None:
        """Wait until it has written more than `seen`, or has ended."""
        while not self.has_ended and all(now <= old for now, old in zip(self.written, seen, strict=True)):
            changed = self._change()
            await self._arm()
            await changed.wait()

    async def _arm(self) -> None:
        """Give one byte of credit to each stream that has none, so that the supervisor reports its next byte."""
        wires = b""
        for index, stream in enumerate(Stream):
            if not self._credit[index]:
                self._credit[index] = 1
                wires += requests.attach(self.number, stream, self._written[index], 1)
        if wires:
            await self._channel.send(wires)
