"""The server that all sandboxes of a framework's process share, where none is named."""

from __future__ import annotations

import atexit
import threading
from contextlib import ExitStack
from pathlib import Path

from anyio.from_thread import start_blocking_portal

from taskcell.client.own_server import own_server

_starting = threading.Lock()
_doors: dict[tuple[str | None, str | None], Path] = {}
_running = ExitStack()


def shared_server(config: Path | str | None = None, program: Path | str | None = None) -> Path:
    """Return the socket of a server that this process started; it ends with the process. Blocking, thread-safe.

    Raises CellError when it does not start.

    Arguments:
        config: its `taskcell.toml`. There is one server for each.
        program: as that of `connect`.
    """
    named = None if config is None else str(Path(config).resolve())
    key = (named, None if program is None else str(program))
    with _starting:
        if key not in _doors:
            if not _doors:
                atexit.register(_running.close)
            portal = _running.enter_context(start_blocking_portal())
            _doors[key] = _running.enter_context(portal.wrap_async_context_manager(own_server(named, (), program)))
        return _doors[key]
