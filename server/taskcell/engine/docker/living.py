"""Marks of processes, by which another one on the same machine can tell that the first has died."""

from __future__ import annotations

import os
from pathlib import Path

_PROC = Path("/proc")
#: In /proc/PID/stat, after the name: the state is the first field, and this the start time in ticks since boot.
_START = 19


def mark_of(pid: int) -> str:
    """A text that no other process of any machine has; empty where the kernel does not tell (no Linux)."""
    place, start = _place(), _start_of(pid)
    return f"{place}/{pid}/{start}" if place and start else ""


def is_dead(mark: str) -> bool:
    """Whether a marked process was on this machine and does not live any more. False where that is not known."""
    place, _, process = mark.rpartition("/")[0].rpartition("/")
    return bool(place) and place == _place() and process.isdigit() and mark_of(int(process)) != mark


def _place() -> str:
    """This boot of this machine, and the namespace in which pids are counted."""
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.stat(_PROC / 'self/ns/pid').st_ino}"
    except OSError:
        return ""


def _start_of(pid: int) -> str:
    try:
        fields = (_PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[_START]
