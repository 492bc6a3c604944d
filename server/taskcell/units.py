"""Parse durations, sizes and cores as people write them, and write them so again.

Each parser raises ValueError with a sentence.
"""

from __future__ import annotations

import math
import re

#: A year is longer than any sandbox lives, and far below what the supervisor's 64-bit milliseconds hold.
MAX_SECONDS = 366 * 86400.0
#: The supervisor counts in milliseconds, and takes 0 for "no limit".
MIN_SECONDS = 0.001
#: Where a sandbox has POSIX shared memory.
SHM = "/dev/shm"  # noqa: S108 - a path in the container
#: Bytes of System V shared memory in a sandbox. Programs that need a large /dev/shm (browsers, loaders of PyTorch) use
#: POSIX shared memory; what both may hold counts as memory.
MAX_IPC = 64 << 20
#: The engine's sizes are signed 64-bit numbers.
MAX_BYTES = (1 << 63) - 1

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(?:[0-9]{1,12}(?:\.[0-9]{1,12})?(?:ms|s|m|h|d))+")
_DURATION_PART = re.compile(r"([0-9.]+)(ms|s|m|h|d)")
_SIZE = re.compile(r"([0-9]{1,20}(?:\.[0-9]{1,12})?) ?([kmgt]?)(?:i?b)?", re.IGNORECASE)
_CORES = re.compile(r"[0-9]{1,6}(?:\.[0-9]{1,9})?")


def parse_duration(value: object) -> float:
    """Seconds from `"500ms"`, `"180s"`, `"15m"`, `"1h30m"`, `"30d"`, or from a number of seconds."""
    wrong = ValueError("must be a duration such as '500ms', '180s', '15m' or '1h', or a number of seconds")
    if isinstance(value, str) and _DURATION.fullmatch(value):
        seconds = sum(float(number) * _SECONDS[unit] for number, unit in _DURATION_PART.findall(value))
    elif isinstance(value, int | float) and not isinstance(value, bool):
        seconds = _finite(value, wrong)
    else:
        raise wrong
    if not MIN_SECONDS <= seconds <= MAX_SECONDS:
        raise ValueError("must be a duration of at least 1 ms and at most 366 days")
    return seconds


def parse_size(value: object) -> int:
    """Bytes from `"2g"`, `"16MiB"`, `"512m"`, or a number of bytes; k, m, g, t are powers of 1024, as docker's."""
    wrong = ValueError("must be a size such as '512m', '2g' or '16MiB', or a number of bytes")
    if isinstance(value, str) and (match := _SIZE.fullmatch(value)):
        factor = 1024 ** ("kmgt".index(match[2].lower()) + 1) if match[2] else 1
        size = int(match[1]) * factor if match[1].isdigit() else int(float(match[1]) * factor)
    elif isinstance(value, int) and not isinstance(value, bool):
        size = value
    else:
        raise wrong
    if not 1 <= size <= MAX_BYTES:
        raise ValueError("must be a size of at least 1 byte, and less than 8 EiB")
    return size


def parse_cores(value: object) -> float:
    """Processor cores from `"1.5"` or `1.5`."""
    wrong = ValueError("must be a number of processor cores such as '1' or '1.5'")
    if isinstance(value, str) and _CORES.fullmatch(value):
        cores = float(value)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        cores = _finite(value, wrong)
    else:
        raise wrong
    # The engine counts in billionths of a core, and refuses less than a hundredth.
    if not 0.01 <= cores <= 1_000_000:
        raise ValueError("must be at least 0.01 processor cores")
    return cores


def format_size(size: int) -> str:
    """A size in the largest binary unit that leaves it short: `1.4 GiB`."""
    number = float(size)
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if number < 1024:
            return f"{number:.4g} {unit}"
        number /= 1024
    return f"{number:.4g} TiB"


def format_seconds(seconds: float) -> str:
    """Seconds as a plain number without a needless fraction: `3600`, `0.5`."""
    return f"{seconds:.3f}".rstrip("0").rstrip(".")


def format_milliseconds(duration_ms: int) -> str:
    """Format a duration as people say it: `0.012 s`, `0.2 s`, `3 s`, `75 s`."""
    value = duration_ms / 1000
    digits = 3 if value < 0.1 else 1 if value < 10 else 0
    number = f"{value:.{digits}f}"
    return (number.rstrip("0").rstrip(".") if digits else number) + " s"


def _finite(value: float, wrong: ValueError) -> float:
    try:
        number = float(value)
    except OverflowError:
        raise wrong from None
    if not math.isfinite(number):
        raise wrong
    return number


def ipc_size(shm: int) -> int:
    """Return how many bytes System V IPC may hold in a sandbox whose /dev/shm has `shm` bytes.

    Shared memory gets as much as POSIX has, up to MAX_IPC; queues and semaphores get a quarter of that each.
    """
    return min(shm, MAX_IPC) + 2 * (min(shm, MAX_IPC) // 4)
