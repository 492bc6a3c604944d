"""Checks that a container has mounted what the policy looked at: paths may have been exchanged in between."""

from __future__ import annotations

from collections.abc import Sequence

from taskcell.engine.docker.hardening import SUPERVISOR
from taskcell.errors import Denied
from taskcell.policy.host_paths import identity_below
from taskcell.policy.policy import HostMount
from taskcell.refusal import Rule
from taskcell.text import shown


def check_mounted(mounts: Sequence[HostMount], pid: int) -> None:
    """Compare each mount with what was allowed. Raises Denied when one differs, or cannot be compared.

    Arguments:
        pid: of the container's first process on this machine, which has started and runs no command yet.
    """
    if not mounts:
        return
    root = f"/proc/{pid}/root"
    # The pid that an engine in a virtual machine names is another process here, or none.
    if identity_below(root, SUPERVISOR) is None:
        reason = (
            "The server cannot see into the container, and so cannot tell whether the host folder that was mounted is "
            "the one that was checked. It needs an engine on this machine, not in a virtual machine, and the right to "
            "look at its processes (root, or CAP_SYS_PTRACE); or remove the folder from volumes."
        )
        raise Denied(Rule.MOUNTS.value, reason)
    for mount in mounts:
        if identity_below(root, mount.target) != mount.path.identity:
            reason = (
                f"What was mounted at {shown(mount.target)} is not the host path {shown(mount.path.asked)} that was "
                "checked: it was exchanged in between, or the image has a link there. The sandbox was removed."
            )
            raise Denied(Rule.MOUNTS.value, reason)
