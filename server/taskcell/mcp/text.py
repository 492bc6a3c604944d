"""A run as a person, or a model, reads it."""

from __future__ import annotations

from taskcell.model import ProcessResult, Status


def run_text(result: ProcessResult) -> str:
    """A run as the model reads it: output, `[stderr]` and what came there, one line on the end, notes."""
    parts = [_ended(result.stdout)]
    if result.stderr:
        parts += ["[stderr]\n", _ended(result.stderr)]
    parts.append(f"[{ending(result)}]")
    parts += [f"\n[note: {note}]" for note in result.notes]
    return "".join(parts)


def _ended(text: str) -> str:
    return text if not text or text.endswith("\n") else text + "\n"


def ending(result: ProcessResult) -> str:
    """How a run ended, in a few words."""
    after, signal = seconds(result.duration_ms), f" ({result.signal})" if result.signal else ""
    killed = f"after {after}; killed; survivors {result.survivors}"
    words = {
        Status.EXITED: f"exit {result.exit_code}{signal} in {after}",
        Status.RUNNING: f"still running after {after} as process {result.process_id}{_cursor(result)}",
        Status.TIMED_OUT: f"timed out {killed}",
        Status.CANCELLED: f"cancelled {killed}",
        Status.OOM_KILLED: f"out of memory {killed}",
        Status.KILLED: f"killed{signal} after {after}; survivors {result.survivors}",
        Status.LOST: f"the sandbox died after {after}; the command is not run again",
    }
    return words[result.status]


def _cursor(result: ProcessResult) -> str:
    more = "" if result.stderr_cursor is None else f", stderr_cursor {result.stderr_cursor}"
    return "" if result.cursor is None else f"; cursor {result.cursor}{more}"


def seconds(duration_ms: int) -> str:
    """A duration as a person says it: `0.012 s`, `0.2 s`, `3 s`, `75 s`."""
    value = duration_ms / 1000
    digits = 3 if value < 0.1 else 1 if value < 10 else 0
    number = f"{value:.{digits}f}"
    return (number.rstrip("0").rstrip(".") if digits else number) + " s"
