"""How a container stands: the engine lists its processes as its own machine sees them, whatever runs in them."""

from __future__ import annotations

from docker.errors import APIError

from taskcell.engine.base import STOPPED_STATES, Standing
from taskcell.engine.docker.connection import Connection
from taskcell.engine.docker.hardening import SOCKET, SUPERVISOR

#: What carries a channel: the command of the exec that `connect` starts.
CHANNEL = (SUPERVISOR, "connect", "--socket", SOCKET)
#: For ps(1) on the engine's machine; the engine itself needs the pid.
_COLUMNS = "-o pid,stat,args"


def standing_of(on: Connection, container_id: str) -> Standing:
    """Ask the engine. Raises what docker-py raises.

    A program that carries the channel's command line and is stopped makes its own sandbox count as stopped, and only
    while that sandbox does not answer.
    """
    try:
        state = on.client.inspect_container(container_id)["State"]
    except APIError as error:
        if error.status_code == 404:
            return Standing.ENDED
        raise
    if not state.get("Running"):
        return Standing.ENDED
    if state.get("Paused") or not on.traits.lists_processes:
        return Standing.RUNS
    for pid, stat, command in on.client.top(container_id, ps_args=_COLUMNS)["Processes"] or ():
        if stat[0] in STOPPED_STATES and (int(pid) == state.get("Pid") or tuple(command.split()) == CHANNEL):
            return Standing.STOPPED
    return Standing.RUNS
