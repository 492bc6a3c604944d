"""The operator closes a task at any server's door, wherever the deployment has it."""

from __future__ import annotations

import httpx2
import pytest

from http_serving import PATIENCE
from peers import Peers, PeerServer
from taskcell.caller import USUAL_SCOPES, Caller
from taskcell.deployment.key import peer_token

pytestmark = pytest.mark.anyio


async def removed(server: PeerServer, task: str) -> httpx2.Response:
    """What `taskcell rm` beside a server is answered."""
    transport = httpx2.AsyncHTTPTransport(uds=str(server.deployment.door), trust_env=False)
    async with httpx2.AsyncClient(transport=transport, timeout=PATIENCE, trust_env=False) as http:
        return await http.post("http://localhost/remove", json={"principal": "ann", "task": task, "purge": False})


async def test_a_task_is_closed_where_it_is_though_another_server_leads_for_it(fleet: Peers) -> None:
    for name in ("one", "two", "three"):
        await fleet.start(name)
    lead = fleet.lead("t")
    holder = fleet.other(lead)
    token = peer_token(holder.deployment.key, holder.deployment.instance, Caller("ann", USUAL_SCOPES))
    headers = {"authorization": f"Bearer {token}", "taskcell-handed-on": "ask"}  # so that it takes what nobody has
    async with httpx2.AsyncClient(headers=headers, timeout=PATIENCE) as http:
        answer = await http.post(f"{holder.url}/tasks/t/processes", json={"line": "true"})
    assert (answer.status_code, fleet.holder("t")) == (200, holder)
    answer = await removed(fleet.other(lead, holder), "t")
    assert (answer.status_code, answer.text, holder.tasks) == (200, '{"closed":1}', set())
