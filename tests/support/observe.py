"""What the host sees of a sandbox, whatever the sandbox says of itself."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import docker

#: Seconds that anything asynchronous of the host (a removal, an end) may take on a very busy machine.
HOST_TIMEOUT = 60.0


def marker() -> str:
    """A number of seconds to sleep that no other process on this machine sleeps: found again in its command line."""
    return f"9{secrets.randbelow(10**8):08d}.5"


def alive(mark: str) -> list[str]:
    """Command lines, on the host, of living processes that hold the mark. A process lives while a thread of it does."""
    found = {}
    for thread in threads():
        try:
            line = (thread / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
            state = (thread / "stat").read_text(errors="replace").rpartition(")")[2].split()[0]
        except OSError:
            continue
        if mark in line and state not in "ZX" and "pytest" not in line:
            found[thread.parts[2]] = line
    return list(found.values())


def strangers(namespace: str) -> list[str]:
    """Living processes of a pid namespace, as a link in `/proc/PID/ns` has it, that do not run the supervisor."""
    found = []
    for process in Path("/proc").iterdir():
        try:
            if not process.name.isdigit() or os.readlink(process / "ns/pid") != namespace:
                continue
            stat = (process / "stat").read_text()
        except OSError:
            continue
        name, _, numbers = stat.partition("(")[2].rpartition(")")
        if not name.startswith("supervisor") and (numbers.split()[0] not in "ZX" or int(numbers.split()[17]) > 1):
            found.append(stat)
    return found


def threads() -> Iterator[Path]:
    """The folders of all threads; any may be gone by now."""
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            with suppress(OSError):
                yield from list((process / "task").iterdir())


def eventually(holds: Callable[[], bool], within: float = HOST_TIMEOUT) -> bool:
    """Whether something becomes true within so many seconds."""
    deadline = time.monotonic() + within
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def containers(api: docker.APIClient, **labels: str) -> list[str]:
    """Ids of the containers, running or not, with these labels."""
    wanted = [f"{key.replace('__', '.')}={value}" for key, value in labels.items()]
    return [str(found["Id"]) for found in api.containers(all=True, filters={"label": ["taskcell=1", *wanted]})]


def commands_in(api: docker.APIClient, container: str) -> list[str]:
    """Command lines of what runs in a container, without the supervisor's own; none where it ends just now."""
    try:
        rows = api.top(container, "-eo pid,args")["Processes"] or []
    except docker.errors.APIError:
        return []
    return [row[-1] for row in rows if not row[-1].startswith("/.taskcell/supervisor")]
