"""The wall clock, as far as it is believed where something is deleted for its age."""

from __future__ import annotations

import time

#: Linux has a clock that counts on while a machine sleeps; elsewhere the monotonic one comes nearest to that.
_STEADY = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
#: What the wall clock showed, less the steady one, when this process began.
_SHIFT = time.time() - time.clock_gettime(_STEADY)


def careful_time() -> float:
    """Seconds of the wall clock; where it has jumped ahead since this process began, what it would show without that.

    A clock that is set wrong for a minute would otherwise make years of what was written an hour ago. Where it is set
    back, or right at last, too little is deleted, until the process begins anew.
    """
    return min(time.time(), _SHIFT + time.clock_gettime(_STEADY))
