"""What becomes of a process for whoever asked for it: its status, its result, and sentences about it."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from taskcell.model import ProcessResult, Status
from taskcell.process.output import Text, stripped
from taskcell.process.process import Process, Totals
from taskcell.process.table import About, Record
from taskcell.supervisor import protocol

#: As timeout(1) has it, and as shells tell of SIGKILL.
EXIT_TIMED_OUT, EXIT_OOM = 124, 137


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a result says of the sandbox: whether we closed it, why it is doomed, where the next command starts."""

    closed: bool
    doomed: str | None
    workdir: str


def status_of(process: Process, *, closed: bool) -> tuple[Status, int | None]:
    """Status and exit code; `closed` says that the sandbox was closed by us, and did not die by itself."""
    ended = process.exit
    if ended is None:
        return (Status.RUNNING if process.lost is None else Status.LOST), None
    if ended.reason is protocol.Reason.TIMEOUT:
        return Status.TIMED_OUT, EXIT_TIMED_OUT
    if ended.oom_kills and (ended.signal == signal.SIGKILL or ended.exit_code == EXIT_OOM):
        return Status.OOM_KILLED, EXIT_OOM
    by_kill = ended.reason is protocol.Reason.KILL
    if by_kill and process.killed is None and process.lost is not None and not closed:
        return Status.LOST, None  # somebody else stopped the container
    if by_kill or ended.signal:
        return Status.KILLED, 128 + (ended.signal or signal.SIGKILL)
    return Status.EXITED, ended.exit_code


def notes_on(process: Process, about: About, status: Status, around: Surroundings) -> Sequence[str]:
    """Sentences that the caller should know."""
    notes = []
    ended = process.exit
    if status is Status.LOST:
        why = around.doomed or process.lost or "its channel ended"
        notes.append(f"The sandbox died under this command ({why}). The command was not run again.")
    if status is Status.TIMED_OUT:
        notes.append(f"The command ran into its timeout of {about.timeout:g} s; it and all it had started were killed.")
    if status is Status.OOM_KILLED:
        notes.append("The kernel killed it because the sandbox's memory was used up; use less memory at once.")
    elif ended is not None and ended.oom_kills:
        notes.append(f"The kernel killed {ended.oom_kills} of its processes because the sandbox's memory was used up.")
    if ended is not None and ended.reason is protocol.Reason.ITSELF and ended.descendants and process.killed is None:
        count = ended.descendants
        what = "1 process that it started still runs" if count == 1 else f"{count} processes that it started still run"
        notes.append(f"{what} in the background, until the sandbox is closed or reset.")
    if status is Status.KILLED and around.closed:
        notes.append("Its sandbox was closed, reset or replaced while it ran.")
    return notes


def result_of(
    record: Record,
    task_id: str,
    texts: tuple[Text, Text],
    around: Surroundings,
    *,
    notes: Iterable[str] = (),
    cursors: Totals | None = None,
) -> ProcessResult:
    """How a process stands now, with these texts for its output."""
    process, about = record.process, record.about
    status, code = status_of(process, closed=around.closed)
    ended, killed = process.exit, process.killed
    out, err = texts
    return ProcessResult(
        status=status,
        exit_code=code,
        signal=signal_name(ended.signal) if ended is not None and ended.signal else None,
        stdout=out.text,
        stderr=err.text,
        truncated=bool(out.omitted_bytes or err.omitted_bytes),
        omitted_bytes=out.omitted_bytes + err.omitted_bytes,
        duration_ms=process.duration_ms,
        task_id=task_id,
        process_id=about.process_id,
        workdir=around.workdir,
        survivors=killed.survivors if killed is not None else 0,
        notes=(*notes_on(process, about, status, around), *notes),
        cursor=None if cursors is None else cursors[0],
        stderr_cursor=None if cursors is None or about.kind == "terminal" else cursors[1],
    )


def plain_texts(texts: tuple[Text, Text], *, plain: bool) -> tuple[Text, Text]:
    """Both texts, without control sequences where `plain` says so."""
    if not plain:
        return texts
    out, err = texts
    return Text(stripped(out.text), out.omitted_bytes), Text(stripped(err.text), err.omitted_bytes)


def signal_name(number: int) -> str:
    """As in `SIGKILL`; a number that Python does not name keeps it."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIG{number}"
