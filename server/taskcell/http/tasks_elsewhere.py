"""A caller's tasks that the deployment's other servers have, for the list of all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import anyio
import httpx2

from taskcell.caller import Caller
from taskcell.deployment.base import Deployment, Peer
from taskcell.deployment.key import peer_token
from taskcell.errors import SandboxLost
from taskcell.http.handing_on import HANDED_ON, IS_HERE
from taskcell.mcp.neighbours import PEER_OPENS, PEER_PATIENCE, PEER_TURN

#: Seconds for one server to say which tasks it has: it looks into its own memory.
TASKS_TIMEOUT = 5.0
_SILENT = "Another server of this deployment does not say which tasks it has; ask again in some seconds."


async def tasks_elsewhere(deployment: Deployment, caller: Caller, query: str) -> Sequence[Mapping[str, Any]]:
    """What every other server answers at `/tasks`. One that has died is waited for until the others have its tasks.

    Raises SandboxLost: one lives, or seems to, and does not answer.

    Arguments:
        query: of the request.
    """
    began = anyio.current_time()
    while True:
        answers: list[Sequence[Mapping[str, Any]] | None] = []

        async def ask(peer: Peer, answers: list[Sequence[Mapping[str, Any]] | None] = answers) -> None:
            answers.append(await _asked(deployment, peer, caller, query))

        async with anyio.create_task_group() as asking:
            for peer in deployment.peers():
                asking.start_soon(ask, peer)
        told = [answer for answer in answers if answer is not None]
        if len(told) == len(answers):
            return [task for answer in told for task in answer]
        if anyio.current_time() - began > PEER_PATIENCE:
            raise SandboxLost(_SILENT)
        await anyio.sleep(PEER_TURN)


async def _asked(deployment: Deployment, peer: Peer, caller: Caller, query: str) -> Sequence[Mapping[str, Any]] | None:
    """What one server answers; None where it does not."""
    token = peer_token(deployment.key, peer.instance, caller)
    sent = {HANDED_ON.decode(): IS_HERE}
    try:
        async with peer.http(token, TASKS_TIMEOUT, connect=PEER_OPENS, **sent) as http:
            answer = await http.get(f"{peer.url}/tasks?{query}")
            tasks: Sequence[Mapping[str, Any]] = answer.json()["tasks"] if answer.is_success else ()
            return tasks if answer.is_success else None
    except (OSError, httpx2.HTTPError, ValueError, KeyError):
        return None
