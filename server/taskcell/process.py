"""One process in a sandbox, seen from the server: its start, its stdin, its output and its end."""

from __future__ import annotations

import math
import time

import anyio

from taskcell.errors import SandboxLost, SpawnFailed, TaskcellError
from taskcell.output import Capture
from taskcell.supervisor import protocol
from taskcell.supervisor.channel import Channel
from taskcell.supervisor.protocol import Stream

#: Seconds for what the supervisor has at hand: output in its spool, the list of processes.
ANSWER_TIMEOUT = 15.0
#: What a failed start means for the caller, by stage.
_FAILED = {
    protocol.FailedStage.REQUEST: "The sandbox refused to start the command",
    protocol.FailedStage.FORK: "The sandbox has no room for one more process",
    protocol.FailedStage.USER: "The sandbox cannot run commands as this user",
    protocol.FailedStage.CWD: "The working directory cannot be used",
    protocol.FailedStage.EXEC: "The program could not be started",
    protocol.FailedStage.PTY: "The sandbox cannot open a terminal",
}


class Process:
    """Listens to the channel for one process. Make it, `start` it, wait for `finished`, `close` it.

    Arguments:
        output_chars: characters of each stream that a result may show.
    """

    def __init__(self, channel: Channel, output_chars: int) -> None:
        self._channel = channel
        self._number = 0
        self._changed = anyio.Event()
        self._stdin_window = protocol.STDIN_WINDOW
        self._began = time.monotonic()
        self._rest = b""
        self.stdout = Capture(output_chars)
        self.stderr = Capture(output_chars)
        self.spawned: protocol.Spawned | None = None
        self.failed: protocol.Failed | None = None
        self.exit: protocol.Exit | None = None
        self.killed: protocol.Killed | None = None
        self.lost: str | None = None

    # --- from the channel's reading task ---------------------------------------------------------------------

    def on_event(self, event: protocol.Event) -> None:
        match event:
            case protocol.Output(stream=stream, offset=offset, data=data):
                (self.stdout if stream is Stream.STDOUT else self.stderr).add(offset, data)
            case protocol.StdinAck(count=count):
                self._stdin_window += count
            case protocol.Spawned():
                self.spawned = event
            case protocol.Failed():
                self.failed = event
            case protocol.Exit():
                self.exit = event
            case protocol.Killed():
                self.killed = event
            case _:
                return
        self._wake()

    def on_lost(self, reason: str) -> None:
        self.lost = reason
        self._wake()

    def _wake(self) -> None:
        changed, self._changed = self._changed, anyio.Event()
        changed.set()

    # --- for the sandbox -------------------------------------------------------------------------------------

    @property
    def duration_ms(self) -> int:
        if self.exit is not None:
            return round(self.exit.duration_us / 1000)
        return round((time.monotonic() - self._began) * 1000)

    def totals(self) -> tuple[int, int]:
        """Bytes written to stdout and stderr, as far as it is known."""
        last = self.killed or self.exit
        if last is None:
            return self.stdout.end, self.stderr.end
        return last.stdout_total, last.stderr_total

    async def start(self, request: protocol.Spawn, stdin: bytes | None = None) -> None:
        """Send the request. Raises SandboxLost. Whether it could be started shows in `finished`."""
        self._number = self._channel.add(self)
        self._began = time.monotonic()
        first, self._rest = (stdin or b"")[: protocol.STDIN_CHUNK], (stdin or b"")[protocol.STDIN_CHUNK :]
        frames = protocol.spawn(self._number, request)
        if stdin:
            self._stdin_window -= len(first)
            frames += protocol.stdin(self._number, first)
            if not self._rest:
                frames += protocol.stdin_eof(self._number)
        await self._channel.send(frames)

    async def ended(self) -> protocol.Exit:
        """Wait for the main process's end. Raises SpawnFailed, SandboxLost."""
        while self.exit is None:
            if self.failed is not None:
                message = f"{_FAILED[self.failed.stage]}: {self.failed.message}."
                raise SpawnFailed(message, no_folder=self.failed.stage is protocol.FailedStage.CWD)
            if self.lost is not None:
                raise SandboxLost(f"The sandbox is gone: {self.lost}.")
            await self._changed.wait()
        return self.exit

    async def finished(self) -> None:
        """Feed stdin and wait for the end, and for the kill's count where there is one. Raises as `ended`."""
        if not self._rest:
            await self._finish()
            return
        error: TaskcellError | None = None
        async with anyio.create_task_group() as feeding:
            feeding.start_soon(self._feed)
            try:
                await self._finish()
            except TaskcellError as failure:  # raised below: a task group would wrap it into a group of its own
                error = failure
            feeding.cancel_scope.cancel()
        if error is not None:
            raise error

    async def _finish(self) -> None:
        if (await self.ended()).reason is not protocol.Reason.ITSELF:
            await self._kill_counted()

    async def _kill_counted(self) -> protocol.Killed:
        while self.killed is None:
            if self.lost is not None:
                raise SandboxLost(f"The sandbox is gone: {self.lost}.")
            await self._changed.wait()
        return self.killed

    async def _feed(self) -> None:
        """Send the rest of stdin as the supervisor makes room; what nobody reads costs nothing but its bytes here."""
        try:
            while self._rest:
                if self._stdin_window <= 0:
                    await self._changed.wait()
                    continue
                size = min(self._stdin_window, protocol.STDIN_CHUNK)
                chunk, self._rest = self._rest[:size], self._rest[size:]
                self._stdin_window -= len(chunk)
                await self._channel.send(protocol.stdin(self._number, chunk))
            await self._channel.send(protocol.stdin_eof(self._number))
        except SandboxLost:
            return

    async def fetch_tails(self) -> None:
        """Ask for the end of each stream that was longer than the first credit. Bounded by ANSWER_TIMEOUT."""
        for stream, capture, total in zip(Stream, (self.stdout, self.stderr), self.totals(), strict=True):
            if capture.end >= total:
                continue
            cursor = max(capture.received, total - capture.tail_bytes)
            await self._channel.send(protocol.attach(self._number, stream, cursor, total - cursor))
            with anyio.move_on_after(ANSWER_TIMEOUT):
                while capture.end < total and self.lost is None:
                    await self._changed.wait()

    async def kill(self, grace: float) -> int:
        """Kill the whole tree; answers the number of survivors. Raises SandboxLost."""
        if self.failed is not None or self._number == 0:
            return 0
        if self.killed is None:
            await self._channel.send(protocol.kill(self._number, math.ceil(grace * 1000)))
        return (await self._kill_counted()).survivors

    def close(self) -> None:
        """Stop listening; the supervisor forgets the process when its tree is gone."""
        if self._number:
            self._channel.remove(self._number)
            self._channel.forget_soon(self._number)
            self._number = 0


class Listing:
    """Asks the supervisor once for all the processes that it remembers."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._answered = anyio.Event()
        self._entries: tuple[protocol.Listed, ...] = ()

    def on_event(self, event: protocol.Event) -> None:
        if isinstance(event, protocol.Listing):
            self._entries += event.entries
            if event.is_last:
                self._answered.set()

    def on_lost(self, reason: str) -> None:
        self._answered.set()

    async def fetch(self) -> tuple[protocol.Listed, ...]:
        """Raises SandboxLost, also when nothing comes within ANSWER_TIMEOUT."""
        self._channel.listen_to_all(self)
        await self._channel.send(protocol.list_processes())
        with anyio.move_on_after(ANSWER_TIMEOUT) as bound:
            await self._answered.wait()
        if bound.cancelled_caught or not self._channel.alive:
            raise SandboxLost("The sandbox is gone: its supervisor does not answer.")
        return self._entries
