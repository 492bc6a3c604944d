"""The doctor's look at several servers of one deployment."""

from __future__ import annotations

import anyio
import anyio.to_thread

from taskcell.assembly import stack
from taskcell.assembly.invocation import Invocation
from taskcell.cli.doctor_checks import ENGINE_TIMEOUT, Check, Verdict
from taskcell.deployment.cluster.deployment import ClusterDeployment
from taskcell.errors import TaskcellError

_NO_STORE = "Nothing is kept of closed sandboxes' files, and there are no snapshots."


async def examine_servers(run: Invocation) -> list[Check]:
    """Whether servers with `http.peer_url` can share what they know, and have a folder in common."""
    try:
        settings = stack.load_settings(run)
        if not settings.http.peer_url:
            return []
        with anyio.fail_after(ENGINE_TIMEOUT):
            deployment = stack.cluster_of(run, settings)
            assert deployment is not None
            try:
                return [await _together(deployment), await anyio.to_thread.run_sync(_store, deployment)]
            finally:
                await deployment.leave(keep=True)
    except TaskcellError as error:
        return [Check("servers", Verdict.BROKEN, " ".join(str(error).split()))]
    except TimeoutError:
        return [Check("servers", Verdict.BROKEN, f"The cluster did not answer within {ENGINE_TIMEOUT:.0f} seconds.")]


async def _together(deployment: ClusterDeployment) -> Check:
    if lacking := await deployment.lacking():
        return Check("servers", Verdict.BROKEN, lacking)
    await deployment.members.look()
    names = deployment.members.names()
    return Check("servers", Verdict.GOOD, f"The deployment has {len(names)}.")


def _store(deployment: ClusterDeployment) -> Check:
    store = deployment.archives
    if store.folder is None:
        mend = "mount a volume that all servers reach (ReadWriteMany), and name its folder as workspace.store."
        return Check("store", Verdict.OPTIONAL, _NO_STORE, mend)
    store.join()
    if not store.is_shared:
        mend = "mount it so that the server's user can write there."
        return Check("store", Verdict.BROKEN, f"{store.folder} cannot be written.", mend)
    return Check("store", Verdict.GOOD, f"{store.folder}.")
