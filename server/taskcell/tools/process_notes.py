"""What an answer of the tool `process` says beside how the process stands."""

from __future__ import annotations

from collections.abc import Iterator

from taskcell.process.kept_output import Reading
from taskcell.process.process import Process
from taskcell.process.record import Record
from taskcell.process.until import Searched

#: Seconds for a process to take what is written to it. A process that reads takes it immediately.
WRITE_TIMEOUT = 2.0
_REST = "Write the rest later."


def notes_on_call(data: str, record: Record, reading: Reading, written: int | None) -> Iterator[str]:
    """Say what the process did not take, and which output is not in the answer."""
    if written is not None and written < len(data.encode()):
        took = f"The process took only {written} bytes"
        over = record.process.has_ended
        yield f"{took}: it has ended." if over else f"{took} within {WRITE_TIMEOUT:g} s: it does not read. {_REST}"
    if reading.more_bytes:
        cursors = f"cursor {reading.cursors[0]}"
        if record.about.kind == "skill":
            cursors += f" and stderr_cursor {reading.cursors[1]}"
        yield f"{reading.more_bytes:,} more bytes are available; continue with {cursors}."
    if reading.lost_bytes:
        yield f"{reading.lost_bytes:,} bytes of the output are no longer kept."


def note_on_rest(count: int | None, process: Process) -> str:
    """Say what a kill did to a command that had ended. `count`: what it had left running; None: unknown."""
    survivors = process.killed.survivors if process.killed is not None else None
    if count == 0:
        return "It had ended before, and had left nothing running."
    if count is None or survivors is None:
        return "It had ended before; what it had left running was to be killed, and nobody could count it."
    killed = max(0, count - survivors)
    what = "1 process was" if killed == 1 else f"{killed} processes were"
    return f"It had ended before; {what} killed that it had left running."


def note_on_match(until: Searched, record: Record, seconds: float) -> str:
    """Say which line matched, or that none did."""
    if until.line is not None:
        return f"'until' matched the line {until.line!r}."
    if record.process.has_ended:
        return "The process ended, and its output has no match of 'until'."
    searched = f"{until.ends[0]:,} bytes" + (f" and {until.ends[1]:,} of stderr" if until.ends[1] else "")
    return f"'until' did not match within {seconds:g} s; the output until then: {searched}."
