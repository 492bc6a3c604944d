"""Turns the state of a process into what a call answers: its status, its result, and notes."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from taskcell.fitting import fitting
from taskcell.model import ProcessResult, Status
from taskcell.process.output import Excerpt
from taskcell.process.process import Process, Totals
from taskcell.process.record import Record
from taskcell.resource_uris import output_address
from taskcell.supervisor import events, protocol
from taskcell.text import PATH_SHOWN, shown, visible

#: As in timeout(1); as shells report SIGINT, with which a person cancels, and SIGKILL.
EXIT_TIMED_OUT, EXIT_CANCELLED, EXIT_OOM = 124, 130, 137
#: Characters of an answer's line on how the command ended, with `[stderr]` and line breaks; and around each note.
ENDING_CHARS, NOTE_MARKS = 120, 10
#: Characters of an answer that are kept free for notes: five long ones.
NOTES_CHARS = 1200


@dataclass(frozen=True, slots=True)
class SandboxFacts:
    """What a result needs to know about the process's sandbox.

    Arguments:
        closed: this server closed it; it did not die by itself.
        doomed: why no further command may run in it; None while one may.
        workdir: the folder in which its next command starts.
        alive: how many processes of this one's tree are alive now; None if that is unknown.
        pids: how many processes and threads it may have; None: no limit.
        runtime: what runs it with a kernel of its own, such as `runsc`; empty where it has this machine's kernel.
    """

    closed: bool
    doomed: str | None
    workdir: str
    alive: int | None = 0
    pids: int | None = None
    runtime: str = ""


def status_of(record: Record, *, closed: bool) -> tuple[Status, int | None]:
    """Return status and exit code. `closed` as in SandboxFacts."""
    process, ended = record.process, record.process.exit
    if ended is None:
        return (Status.RUNNING if process.lost is None else Status.LOST), None
    if ended.reason is protocol.Reason.TIMEOUT:
        return Status.TIMED_OUT, EXIT_TIMED_OUT
    if ended.oom_kills and (ended.signal == signal.SIGKILL or ended.exit_code == EXIT_OOM):
        return Status.OOM_KILLED, EXIT_OOM
    if ended.reason in (protocol.Reason.KILL, protocol.Reason.CANCEL):
        return _killed(record, ended, closed=closed)
    return (Status.KILLED, 128 + ended.signal) if ended.signal else (Status.EXITED, ended.exit_code)


def _killed(record: Record, ended: events.Exit, *, closed: bool) -> tuple[Status, int | None]:
    """Return status and exit code of what was killed on request."""
    process = record.process
    if process.killed is None and process.lost is not None and not closed:
        return Status.LOST, None  # somebody else stopped the container
    if record.is_cancelled:
        return Status.CANCELLED, EXIT_CANCELLED
    return Status.KILLED, 128 + (ended.signal or signal.SIGKILL)


def notes_on(record: Record, status: Status, facts: SandboxFacts) -> Sequence[str]:
    """Return the sentences that the caller should know."""
    notes = []
    process, about, ended = record.process, record.about, record.process.exit
    survivors = survivors_of(process, closed=facts.closed)
    if status is Status.LOST:
        why = facts.doomed or process.lost or "its channel ended"
        notes.append(f"The sandbox died under this command ({why}). The command was not run again.")
        if facts.runtime:
            notes.append(
                f"The runtime '{facts.runtime}' ends a sandbox that needs more memory or more processes than it may "
                "have, without a word: if the command needed many, use fewer at a time."
            )
    if status is Status.TIMED_OUT:
        whole = " with everything that it started" if survivors == 0 else ""
        notes.append(f"It reached its timeout of {about.timeout:g} s and was killed{whole}.")
    if status is Status.OOM_KILLED:
        notes.append(
            "The sandbox's memory was used up, so the kernel killed the command; use less memory at a time. "
            "Files in /workspace, /tmp and /dev/shm and System V shared memory (`ipcs`) count too: remove what is not "
            "needed, or use `sandbox` with the action 'reset', which frees all but /workspace."
        )
    elif ended is not None and ended.oom_kills:
        notes.append(f"The sandbox's memory was used up, so the kernel killed {ended.oom_kills} of its processes.")
    if ended is not None and ended.refused_forks and facts.pids:
        notes.append(
            f"While it ran, the sandbox had {facts.pids} processes and threads, as many as it may, and "
            f"{ended.refused_forks:,} more could not start: run fewer at once, or end what runs in the background."
        )
    if ended is not None and ended.reason is protocol.Reason.ITSELF and process.killed is None and not facts.closed:
        notes += _notes_on_the_rest(about.process_id, facts.alive)
    if survivors is None:
        notes.append(
            "The sandbox could not find out whether all processes of the command are dead, so it is removed with all "
            "of them; the next call gets a new one."
        )
    return [*notes, *_notes_on_the_end(record, status, facts)]


def _notes_on_the_rest(process_id: str, count: int | None) -> Sequence[str]:
    """Say how many processes a command left behind that ended by itself."""
    if count is None:
        return ["The sandbox could not find out whether processes that it started still run."]
    if not count:
        return []
    what = "1 process that it started still runs" if count == 1 else f"{count} processes that it started still run"
    return [f"{what} in the background, until `process` kills '{process_id}' or the sandbox is closed."]


def _notes_on_the_end(record: Record, status: Status, facts: SandboxFacts) -> Sequence[str]:
    """Say where the next command starts if that is not where this one ended."""
    if facts.closed:
        return ["Its sandbox was closed, reset or replaced while it ran."] if status is Status.KILLED else []
    notes = (
        [f"{record.unkept}; the next command starts in {shown(facts.workdir, PATH_SHOWN)}."] if record.unkept else []
    )
    return [*notes, record.end_note] if record.end_note else notes


def survivors_of(process: Process, *, closed: bool) -> int | None:
    """Return how many of its processes a kill could not end; None if that is unknown.

    A sandbox that we closed is gone with all that ran in it. One that was lost while it ran a command or ended it
    leaves the question open: root of the sandbox can end the channel alone.
    """
    if process.killed is not None:
        return process.killed.survivors
    ended_itself = process.exit is not None and process.exit.reason is protocol.Reason.ITSELF
    return None if process.lost is not None and not ended_itself and not closed else 0


def result_of(
    record: Record,
    task_id: str,
    texts: tuple[Excerpt, Excerpt],
    facts: SandboxFacts,
    *,
    limit: int,
    first: Iterable[str] = (),
    notes: Iterable[str] = (),
    cursors: Totals | None = None,
) -> ProcessResult:
    """Return how a process stands now.

    Arguments:
        texts: of its output, in at most `output_room` characters.
        limit: characters of all the text of the answer.
        first, notes: sentences for the caller before and after those on the process.
    """
    process, about = record.process, record.about
    status, code = status_of(record, closed=facts.closed)
    ended = process.exit
    out, err = texts
    room = limit - ENDING_CHARS - len(out.text) - len(err.text)
    omitted = out.omitted_bytes + err.omitted_bytes
    left_out = _left_out(omitted, output_address(task_id, about.process_id), room)
    room -= len(left_out) + NOTE_MARKS if left_out else 0
    return ProcessResult(
        status=status,
        exit_code=code,
        signal=signal_name(ended.signal) if ended is not None and ended.signal else None,
        stdout=out.text,
        stderr=err.text,
        truncated=omitted > 0,
        omitted_bytes=omitted,
        duration_ms=process.duration_ms,
        task_id=task_id,
        process_id=about.process_id,
        workdir=visible(facts.workdir),
        survivors=survivors_of(process, closed=facts.closed),
        kind=about.kind,
        left_out=left_out,
        notes=fitting((*first, *notes_on(record, status, facts), *notes), room, NOTE_MARKS),
        cursor=None if cursors is None else cursors[0],
        stderr_cursor=None if cursors is None or about.kind == "terminal" else cursors[1],
    )


def _left_out(omitted: int, whole: str, room: int) -> str:
    """Say where the whole output is, if there is room for the address."""
    note = f"{omitted:,} bytes of the output are left out; the whole: {whole}"
    return note if omitted and len(note) + NOTE_MARKS <= room else ""


def output_room(limit: int) -> int:
    """Return how many characters of output fit into an answer of `limit` characters, beside its ending and notes."""
    return max(0, limit - ENDING_CHARS - min(limit // 4, NOTES_CHARS))


def signal_name(number: int) -> str:
    """Return a signal's name, such as `SIGKILL`; `SIG` and the number if Python has no name for it."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIG{number}"
