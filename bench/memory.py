"""The server that a benchmark has started, and what it and its machine hold in memory."""

from __future__ import annotations

from pathlib import Path


def resident(pid: int) -> int:
    """Bytes of memory that a process holds now (VmRSS)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) * 1024


def used() -> int:
    """Bytes of the machine's memory that are not available to anybody else."""
    table = {line.split(":")[0]: int(line.split()[1]) for line in Path("/proc/meminfo").read_text().splitlines()}
    return (table["MemTotal"] - table["MemAvailable"]) * 1024


def server_pid() -> int:
    for task in Path("/proc/self/task").iterdir():
        for pid in (task / "children").read_text().split():
            if "taskcell" in Path(f"/proc/{pid}/cmdline").read_text():
                return int(pid)
    raise SystemExit("The server is not there.")
