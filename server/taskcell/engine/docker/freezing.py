"""Has the engine pause containers for a moment, and lets them go on. Everything here blocks."""

from __future__ import annotations

from collections.abc import Iterable

from docker import APIClient
from docker.errors import APIError

from taskcell.engine.docker.classify import is_not_running


def freeze(client: APIClient, containers: Iterable[str], paused: list[str]) -> None:
    """Pause containers; one that has ended is left out. Raises APIError.

    Arguments:
        containers: their ids.
        paused: gets the id of each that has been paused, also where another one fails.
    """
    for container in containers:
        try:
            client.pause(container)
        except APIError as error:
            if not is_not_running(error):
                raise
        else:
            paused.append(container)


def thaw(client: APIClient, containers: Iterable[str]) -> None:
    """Let containers go on; one that has been removed, or goes on already, is left out. Raises APIError."""
    for container in containers:
        try:
            client.unpause(container)
        except APIError as error:
            if not is_not_running(error):
                raise
