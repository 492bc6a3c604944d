"""The options of `docker run` that no field of a profile can hold: by which rule each is refused, and why."""

from __future__ import annotations

from taskcell.profile.docker_flags import Given
from taskcell.refusal import Refusal, Rule

_LIMITS = "would change the sandbox's limits; only memory, cpus and pids set limits"
_OTHERS = "mounts what the policy cannot judge; use 'volumes'"
_DEVICE = "gives the sandbox a device of the host, or changes how it is used, which no profile can"
_REFUSED: dict[str, tuple[Rule, str]] = {
    "privileged": (
        Rule.PRIVILEGED,
        "is refused whatever policy.allow_privileged says: what runs in a sandbox never holds a privilege, so it would "
        "only take the engine's protection away",
    ),
    "env-file": (Rule.ENVIRONMENT, "reads variables from a file of the host; write them into 'environment'"),
    "group-add": (Rule.GROUPS, "adds groups to the user, which no profile can; a user's one group is in 'user'"),
    "security-opt": (Rule.SECURITY, "changes the engine's protection of the sandbox, which no profile can"),
    "sysctl": (Rule.KERNEL, "changes a setting of the kernel, which no profile can"),
    "use-api-socket": (Rule.SOCKETS, "gives the sandbox the engine's socket and credentials, which no profile can"),
    **dict.fromkeys(
        ("publish", "publish-all", "expose"),
        (Rule.EXTRA_ARGS, "opens a port, and nothing reaches a sandbox from outside"),
    ),
    **dict.fromkeys(("volumes-from", "volume-driver"), (Rule.MOUNTS, _OTHERS)),
    **dict.fromkeys(
        (
            "device", "device-cgroup-rule", "device-read-bps", "device-read-iops", "device-write-bps",
            "device-write-iops", "blkio-weight-device",
        ),
        (Rule.DEVICES, _DEVICE),
    ),
    **dict.fromkeys(
        (
            "blkio-weight", "cgroup-parent", "cpu-count", "cpu-percent", "cpu-period", "cpu-quota", "cpu-rt-period",
            "cpu-rt-runtime", "cpu-shares", "cpuset-cpus", "cpuset-mems", "io-maxbandwidth", "io-maxiops",
            "kernel-memory", "memory-reservation", "memory-swap", "memory-swappiness", "oom-kill-disable",
            "oom-score-adj", "storage-opt", "ulimit",
        ),
        (Rule.RESOURCES, _LIMITS),
    ),
}  # fmt: skip


def refusal_of(given: Given) -> Refusal:
    """Return the refusal of an option that no field of a profile can hold."""
    rule, why = _REFUSED.get(given.name, (Rule.EXTRA_ARGS, "has no counterpart in a profile"))
    return Refusal(rule, f"The engine option --{given.name} {why}; remove it from extra_args.")
