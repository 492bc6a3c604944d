"""Writes what a run of the matrix gave into docs/clients.md, between two marks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

CHECKS = (
    "list", "call", "structured", "job", "picture", "error", "progress", "cancel", "time-out", "resources",
    "clean exit",
)  # fmt: skip
BEGIN = '<!-- made by `make test-clients MATRIX_ARGS="--write docs/clients.md"` -->'
END = "<!-- end -->"
#: Of a client's time-out: the server answers that much sooner, so that its answer arrives.
MARGIN = 2 / 3
#: Seconds: `limits.wait` of a new installation.
WAIT = 50


def write(page: Path, rows: Sequence[Any]) -> None:
    """Replace what stands between the marks. Raises ValueError where they are not there."""
    text = page.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    after = rest.split(END, 1)[1]
    page.write_text(f"{before}{BEGIN}\n\n{tables(rows)}\n{END}{after}", encoding="utf-8")


def tables(rows: Sequence[Any]) -> str:
    """Return the table of checks, its reasons, and the table of time-outs, in Markdown."""
    reasons: list[str] = []
    lines = [_line("client", *CHECKS), _line(*["---"] * (len(CHECKS) + 1))]
    for row in rows:
        cells = [_cell(*row.outcomes[check], reasons) for check in CHECKS]
        lines.append(_line(f"{row.client.title} {row.client.version}", *cells))
    notes = [f"{number}. {reason}" for number, reason in enumerate(reasons, 1)]
    return "\n".join([*lines, "", *notes, "", *_timeouts(rows), ""])


def _timeouts(rows: Sequence[Any]) -> list[str]:
    lines = [
        _line("client", "gives a call up after", "raised by", "or in the server's environment"),
        _line(*["---"] * 4),
    ]
    for row in rows:
        seconds = row.default_timeout
        short = seconds is not None and seconds <= WAIT
        variable = f"`TASKCELL__LIMITS__WAIT={int(seconds * MARGIN)}s`" if short else "none is needed"
        given = "never, by itself" if seconds is None else f"{seconds:.0f} s"
        lines.append(_line(row.client.title, given, row.client.raised_by or "", variable))
    return lines


def _cell(outcome: str, said: str, reasons: list[str]) -> str:
    if outcome == "held":
        return "✓"
    reason = f"{said[0].upper()}{said[1:]}."
    if reason not in reasons:
        reasons.append(reason)
    return str(reasons.index(reason) + 1)


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"
