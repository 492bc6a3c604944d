"""What the end of a process means for whoever asked for it: its status, and sentences about it."""

from __future__ import annotations

import signal
from collections.abc import Sequence

from taskcell.model import Command, Status
from taskcell.process import Process
from taskcell.supervisor import protocol

#: As timeout(1) has it, and as shells tell of SIGKILL.
EXIT_TIMED_OUT, EXIT_OOM = 124, 137


def status_of(process: Process, *, closed: bool) -> tuple[Status, int | None]:
    """Status and exit code; `closed` says that the sandbox was closed by us, and did not die by itself."""
    ended = process.exit
    if ended is None:
        return Status.LOST, None
    if ended.reason is protocol.Reason.TIMEOUT:
        return Status.TIMED_OUT, EXIT_TIMED_OUT
    if ended.oom_kills and (ended.signal == signal.SIGKILL or ended.exit_code == EXIT_OOM):
        return Status.OOM_KILLED, EXIT_OOM
    by_kill = ended.reason is protocol.Reason.KILL
    if by_kill and process.lost is not None and not closed:
        return Status.LOST, None  # somebody else stopped the container
    if by_kill or ended.signal:
        return Status.KILLED, 128 + (ended.signal or signal.SIGKILL)
    return Status.EXITED, ended.exit_code


def notes_on(process: Process, command: Command, status: Status, doomed: str | None) -> Sequence[str]:
    """Sentences that the caller should know; `doomed` is why the sandbox must not be used again."""
    notes = []
    ended = process.exit
    if status is Status.LOST:
        why = doomed or process.lost or "its channel ended"
        notes.append(f"The sandbox died under this command ({why}). The command was not run again.")
    if status is Status.TIMED_OUT:
        notes.append(
            f"The command ran into its timeout of {command.timeout:g} s; it and all it had started were killed."
        )
    if status is Status.OOM_KILLED:
        notes.append("The kernel killed it because the sandbox's memory was used up; use less memory at once.")
    elif ended is not None and ended.oom_kills:
        notes.append(f"The kernel killed {ended.oom_kills} of its processes because the sandbox's memory was used up.")
    if ended is not None and ended.reason is protocol.Reason.ITSELF and ended.descendants:
        count = ended.descendants
        what = "1 process that it started still runs" if count == 1 else f"{count} processes that it started still run"
        notes.append(f"{what} in the background, until the sandbox is closed or reset.")
    return notes


def signal_name(number: int) -> str:
    """As in `SIGKILL`; a number that Python does not name keeps it."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIG{number}"
