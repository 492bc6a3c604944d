"""The processes of one sandbox by name, for as long as calls may ask about them."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence

from taskcell.process.held import HeldProcess
from taskcell.process.masks import Masks
from taskcell.process.process import Process
from taskcell.process.record import About, Record, process_number
from taskcell.supervisor import events, protocol, requests
from taskcell.supervisor.channel import ANSWER_TIMEOUT, Channel

#: Finished processes that are remembered; the supervisor remembers as many.
FINISHED_MAX = 64


class ProcessTable:
    """Holds the running processes, and the FINISHED_MAX that ended last. `masks`: of their output."""

    def __init__(self, channel: Channel, masks: Masks) -> None:
        self._channel = channel
        self._masks = masks
        self._records: dict[str, Record] = {}
        self._finished: deque[Record] = deque()

    def __iter__(self) -> Iterator[Record]:
        """Iterate in the order in which they were started."""
        return iter(list(self._records.values()))

    def get(self, process_id: str) -> Record | None:
        return self._records.get(process_id)

    @property
    def running(self) -> int:
        """How many have a living main process."""
        return len(self._records) - len(self._finished)

    @property
    def highest(self) -> int:
        """The number of the newest process's name; 0 without one."""
        return max((process_number(name) for name in self._records), default=0)

    def add(self, about: About, output_chars: int, kind: type[Process] = Process) -> Record:
        """Make the record of a process that is about to be started."""

        def on_end() -> None:
            self._end(record)

        record = Record(about, kind(self._channel, output_chars, on_end, self._masks))
        self._records[about.process_id] = record
        return record

    def _end(self, record: Record) -> None:
        record.ended, record.lasted = time.time(), record.age
        if record.process.exit is not None:
            record.alive = record.process.exit.descendants
        if record.on_end is not None:
            record.on_end()
        if self._records.get(record.about.process_id) is not record:
            return
        self._finished.append(record)
        while len(self._finished) > FINISHED_MAX:
            self.remove(self._finished[0])

    def remove(self, record: Record) -> None:
        """Forget a process, here and in the supervisor."""
        if self._records.pop(record.about.process_id, None) is None:
            return
        if record in self._finished:
            self._finished.remove(record)
        record.process.close()

    async def adopt(self) -> None:
        """Take up the processes that an earlier server left in the sandbox. Raises SandboxLost.

        One without a name is ended: what that server ran for itself, as to move files, waits for it for ever. So is one
        whose reader has gone with that server and is not to come back.
        """
        listing = await self._channel.ask(requests.list_processes(), events.Listing, ANSWER_TIMEOUT, self._take_up)
        for listed in (entry for part in listing for entry in part.entries):
            about = About.from_tag(listed.tag)
            if listed.state is protocol.ProcessState.RUNNING and (about is None or about.linger == 0):
                await self._channel.send(requests.kill(listed.process, 0))

    def _take_up(self, listing: Sequence[events.Listing]) -> None:
        """Runs before the channel reads on: an EXIT may follow at once, and must find its listener."""
        # Finished ones first, and in the order of their age: the oldest are the first to be forgotten.
        entries = (entry for part in listing for entry in part.entries)
        for listed in sorted(entries, key=lambda entry: (entry.state == protocol.ProcessState.RUNNING, -entry.age_ms)):
            about = About.from_tag(listed.tag)
            self._channel.reserve(listed.process)
            if listed.state is not protocol.ProcessState.GONE:
                self._channel.living.add(listed.process)
            if about is not None and about.process_id not in self._records:
                record = self.add(about, 0, Process if about.linger is None else HeldProcess)
                record.process.take_up(listed, stdin_open=about.takes_input)
                record.began = time.monotonic() - listed.age_ms / 1000
                record.lasted = listed.duration_us / 1e6
                record.ended = about.started + record.lasted
                record.alive = listed.alive
            elif listed.state is not protocol.ProcessState.RUNNING:
                self._channel.forget_soon(listed.process)
        by_start = sorted(self._records.values(), key=lambda record: process_number(record.about.process_id))
        self._records = {record.about.process_id: record for record in by_start}
