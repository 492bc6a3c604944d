"""How the filter of system calls is handed to the engine."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from taskcell.engine.docker.seccomp_table import profile
from taskcell.engine.docker.traits import FilterUse

OPTION = "seccomp="


@contextmanager
def filter_option(use: FilterUse) -> Iterator[str]:
    """The security option that asks for the filter, empty where the engine takes none.

    It holds while the container is being created: the engine reads a file then, and keeps what it has read.
    """
    if use is FilterUse.TEXT:
        yield OPTION + profile()
    elif use is FilterUse.FILE:
        with tempfile.NamedTemporaryFile("w", prefix="taskcell-seccomp-", suffix=".json") as file:
            file.write(profile())
            file.flush()
            os.fchmod(file.fileno(), 0o644)  # the engine may be another user; there is no secret in it
            yield OPTION + file.name
    else:
        yield ""
