"""Opens a pool, and closes it with all that it has."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio

from taskcell.config.settings import Settings
from taskcell.deployment.base import Deployment
from taskcell.egress.egress import Egress
from taskcell.engine.base import Engine
from taskcell.pool.parts import Parts, hold_group
from taskcell.pool.pool import Pool
from taskcell.pool.workspaces import Profiles


@asynccontextmanager
async def open_pool(
    engine: Engine,
    settings: Settings,
    deployment: Deployment,
    profiles: Profiles,
    *,
    for_one_call: bool = False,
    egress: Egress | None = None,
) -> AsyncIterator[Pool]:
    """A pool without a sandbox yet; leaving closes all of them, shielded and bounded.

    Arguments:
        deployment: where other servers find what this one leaves.
        profiles: of the server's tools, as they are now.
        for_one_call: make nothing beforehand, leave nothing behind, and leave alone what other servers left.
        egress: what sandboxes reach by name; None: by the settings, without an audit log.
    """
    egress = egress or Egress(settings.egress)
    host = await anyio.create_task_group().__aenter__()
    with anyio.CancelScope(shield=True):  # for one turn of the loop
        group = await host.start(hold_group)
    parts = Parts.make(group, engine, settings, deployment, profiles=profiles, for_one_call=for_one_call, egress=egress)
    pool = Pool(group, parts, settings, deployment, for_one_call=for_one_call)
    try:
        yield pool
    finally:
        try:
            await pool.close()
        finally:
            try:
                # Not with the error that ends the pool, which would be wrapped into a group.
                await host.__aexit__(None, None, None)
            finally:
                with anyio.CancelScope(shield=True):
                    await deployment.leave(keep=pool.keeps_sandboxes)
