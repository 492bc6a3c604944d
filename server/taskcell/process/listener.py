"""The events of one process: its output as far as credit reaches, its end, or its loss."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import anyio

from taskcell.process.masks import Masks
from taskcell.process.output import Capture
from taskcell.process.stdin import Input
from taskcell.supervisor import events


@dataclass(slots=True, eq=False)
class Asked:
    """A READ without an answer yet. Its asker may have given up; the answer comes all the same."""

    answered: anyio.Event = field(default_factory=anyio.Event)
    data: events.Data | None = None


#: The capture of a process that holds no output; nothing is added to it.
_NOTHING = Capture(0)


class Listener:
    """Keeps what the channel reports about one process; nothing here waits. `Process` adds the requests.

    Arguments:
        given: the process's standard input; it learns how much was consumed and when to stop.
        output_chars: characters of each stream that a result may show.
        masks: what is masked in the output; None: nothing.
        on_end: called once when the main process has ended or the process is lost; it must not block.
    """

    def __init__(
        self,
        given: Input,
        output_chars: int,
        on_end: Callable[[], None] | None = None,
        masks: Masks | None = None,
    ) -> None:
        self.masks = Masks() if masks is None else masks
        self._on_end = on_end
        self._changed: anyio.Event | None = None
        self._asked: deque[Asked] | None = None
        self._credit = [0, 0]
        self._written = [0, 0]
        self.input = given
        self.stdout = Capture(output_chars, self.masks)
        self.stderr = Capture(output_chars, self.masks)
        self.spawned: events.Spawned | None = None
        self.failed: events.Failed | None = None
        self.exit: events.Exit | None = None
        self.killed: events.Killed | None = None
        self.lost: str | None = None

    def on_event(self, event: events.Event) -> None:
        match event:
            case events.Output():
                self._take_output(event)
            case events.Data():
                self._take_data(event)
            case events.StdinAck(count=count):
                self.input.acknowledged(count)
            case events.Spawned():
                self.spawned = event
            case events.Failed():
                self.failed = event
            case events.Exit():
                self.exit = event
                self._written = [event.stdout_total, event.stderr_total]
                self.input.stop()
                self._tell_end()
            case events.Killed():
                self.killed = event
            case _:
                return
        self._wake()

    def on_lost(self, reason: str) -> None:
        self.lost = reason
        for asked in self._asked or ():
            asked.answered.set()
        self._asked = None
        self.input.stop()
        if self.exit is None:
            self._tell_end()
        self._wake()

    def _take_output(self, event: events.Output) -> None:
        index = event.stream - 1
        capture = self.stderr if index else self.stdout
        if capture is not _NOTHING and event.offset == capture.received:
            capture.add(event.offset, event.data)
        self._credit[index] = max(0, self._credit[index] - len(event.data))
        self._written[index] = max(self._written[index], event.offset + len(event.data))

    def _take_data(self, event: events.Data) -> None:
        if event.stream is not None:
            index = event.stream - 1
            self._written[index] = max(self._written[index], event.total)
        if self._asked:
            asked = self._asked.popleft()
            asked.data = event
            asked.answered.set()

    def _tell_end(self) -> None:
        if self._on_end is not None:
            on_end, self._on_end = self._on_end, None
            on_end()

    def _wake(self) -> None:
        changed, self._changed = self._changed, None
        if changed is not None:
            changed.set()

    def _change(self) -> anyio.Event:
        """Return the event that the next change sets. It is made on demand: most processes have no second waiter."""
        if self._changed is None:
            self._changed = anyio.Event()
        return self._changed

    def let_go(self) -> None:
        """Free the captured output: from now on it is read from the supervisor."""
        self.stdout = self.stderr = _NOTHING
        if self.exit is not None:
            self.exit = replace(self.exit, report_size=0, report=b"")
