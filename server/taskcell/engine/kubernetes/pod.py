"""From an authorised profile to the pod that a cluster is asked for. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

from taskcell.engine.base import ContainerSpec
from taskcell.model import WORKSPACE, Profile
from taskcell.policy.capabilities import root_capabilities

SUPERVISOR_FOLDER = "/.taskcell"
SUPERVISOR = f"{SUPERVISOR_FOLDER}/supervisor"
#: In the container's own /dev: a tmpfs that belongs to root. An emptyDir has mode 0777, which the supervisor refuses.
POD_SOCKET = "/dev/taskcell/supervisor.sock"
POD_REPORTS = "/dev/taskcell.state"
#: The one container of a pod.
CELL = "cell"
#: What PID 1 keeps, as on Docker. Pod Security "baseline" allows all four.
KEPT_CAPABILITIES = ("KILL", "SETGID", "SETPCAP", "SETUID")
#: What our labels and annotations begin with.
LABEL_PREFIX = "taskcell.dev/"
#: What a pod may run at the longest, in seconds, whatever becomes of every server: a day.
DEADLINE = 86_400
#: Seconds that the kubelet gives the supervisor at a pod's end: its grace of 2 s, and the count.
POD_GRACE = 6
#: What the scheduler counts for a sandbox: idle ones are many. A profile with less asks for less.
REQUESTED_MEMORY, REQUESTED_CPU = 64 << 20, "10m"
#: What cannot stand in a label is given as a hash of so many characters.
LABEL_MAX, HASHED = 63, 40


def impossible(profile: Profile) -> Iterator[str]:
    """Sentences on what a profile asks for and no pod can have."""
    if any(mount.source is not None for mount in profile.mounts) or profile.folder is not None:
        yield "it mounts a folder of the host, and a pod may run on any node: put the files into the image or the task"
    if profile.host_namespaces:
        yield f"it shares the host's {', '.join(profile.host_namespaces)}, which a cluster's nodes do not give"
    if profile.network != "none":
        yield f"its network is '{profile.network}', and pods have none: name hosts in `egress`"
    if profile.kind != "terminal" and profile.entrypoint is None:
        yield (
            "it runs its image's own program, and no API of Kubernetes says what that is: name it in `entrypoint`, or "
            "set `entrypoint = []` where each call names its program"
        )
    if not profile.remove:
        yield "`rm = false` keeps a stopped container, and a cluster keeps none"
    if profile.gpus:
        yield "it asks for GPUs, which this engine does not ask a cluster for yet"


def label(value: str) -> str:
    """A value that may stand in a label: itself where it may, else a hash of it."""
    plain = value.replace("-", "").replace("_", "").replace(".", "")
    if len(value) <= LABEL_MAX and (not value or (plain.isascii() and plain.isalnum() and value[-1].isalnum())):
        return value
    return hashlib.sha256(value.encode()).hexdigest()[:HASHED]


def labels(spec: ContainerSpec) -> dict[str, str]:
    """The spec's labels as Kubernetes has them."""
    own = {LABEL_PREFIX + key.removeprefix("taskcell.").replace("taskcell", "sandbox"): label(value)
           for key, value in spec.labels.items()}  # fmt: skip
    return own | {LABEL_PREFIX + "network": spec.profile.network}


def manifest(spec: ContainerSpec, supervisor: str) -> dict[str, Any]:
    """The pod of a sandbox.

    Arguments:
        supervisor: name of the ConfigMap that holds the supervisor.
    """
    profile = spec.profile
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": spec.name,
            "labels": labels(spec),
            # Empty and there: a patch that tests a key that is missing fails.
            "annotations": {LABEL_PREFIX + "name": "", "cluster-autoscaler.kubernetes.io/safe-to-evict": "false"},
        },
        "spec": {
            # A supervisor that dies is started again beside the same files; one that ends with 0 has ended for good.
            "restartPolicy": "OnFailure",
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "hostname": "sandbox",
            "terminationGracePeriodSeconds": POD_GRACE,
            "activeDeadlineSeconds": DEADLINE,
            "dnsPolicy": "None",
            "dnsConfig": {"nameservers": ["127.0.0.1"]},
            **({"runtimeClassName": profile.runtime} if profile.runtime else {}),
            "nodeSelector": {"kubernetes.io/arch": architecture(profile)},
            "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [_cell(spec)],
            "volumes": [*_volumes(spec, supervisor)],
        },
    }


def architecture(profile: Profile) -> str:
    """The machine that a profile's image is for, as Kubernetes writes it."""
    return profile.platform.partition("/")[2] or "amd64"


def _cell(spec: ContainerSpec) -> dict[str, Any]:
    profile = spec.profile
    limits = {
        "memory": profile.memory and str(profile.memory),
        "cpu": profile.cpus and f"{round(profile.cpus * 1000)}m",
    }
    added = sorted({*KEPT_CAPABILITIES, *(root_capabilities(profile) if profile.sudo else ())})
    return {
        "name": CELL,
        "image": profile.image,
        "imagePullPolicy": "IfNotPresent",
        "workingDir": "/",
        "command": [*_supervising(spec)],
        "volumeMounts": [*_mounts(profile)],
        "resources": {
            "limits": {key: value for key, value in limits.items() if value},
            "requests": {
                "memory": str(min(profile.memory or REQUESTED_MEMORY, REQUESTED_MEMORY)),
                "cpu": REQUESTED_CPU,
            },
        },
        "securityContext": {
            "runAsUser": 0,
            "runAsGroup": 0,
            "privileged": False,
            "allowPrivilegeEscalation": profile.sudo,
            "readOnlyRootFilesystem": profile.read_only,
            "capabilities": {"drop": ["ALL"], "add": added},
        },
    }


def _supervising(spec: ContainerSpec) -> Iterator[str]:
    yield from (SUPERVISOR, "init", "--socket", POD_SOCKET, "--claim", str(round(spec.claim_within * 1000)))
    for mount in spec.profile.tmpfs:  # an emptyDir has no mode but 0777
        yield from ("--mode", f"{mount.mode:o}:{mount.target}")


def _mounts(profile: Profile) -> Iterator[Mapping[str, Any]]:
    yield {"name": "supervisor", "mountPath": SUPERVISOR_FOLDER, "readOnly": True}
    yield {"name": "workspace", "mountPath": WORKSPACE, "readOnly": profile.is_reader}
    for number, one in enumerate(profile.tmpfs):
        yield {"name": f"memory-{number}", "mountPath": one.target}


def _volumes(spec: ContainerSpec, supervisor: str) -> Iterator[Mapping[str, Any]]:
    yield {"name": "supervisor", "configMap": {"name": supervisor, "defaultMode": 0o555}}
    yield {"name": "workspace", "emptyDir": _memory(spec.workspace.size)}
    for number, one in enumerate(spec.profile.tmpfs):
        yield {"name": f"memory-{number}", "emptyDir": _memory(one.size)}


def _memory(size: int) -> dict[str, str]:
    return {"medium": "Memory", "sizeLimit": str(size)}
