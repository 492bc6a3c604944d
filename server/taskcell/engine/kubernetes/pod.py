"""From an authorised profile to the pod that a cluster is asked for. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from taskcell.engine.base import ContainerSpec
from taskcell.model import WORKSPACE, Profile
from taskcell.policy.capabilities import root_capabilities

SUPERVISOR_FOLDER = "/.taskcell"
SUPERVISOR = f"{SUPERVISOR_FOLDER}/supervisor"
#: In the container's own /dev: a tmpfs that belongs to root. An emptyDir has mode 0777, which the supervisor refuses.
POD_SOCKET = "/dev/taskcell/supervisor.sock"
POD_REPORTS = "/dev/taskcell.state"
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
#: The same for a container that is there in case its skill is called; a supervisor that waits takes 5 MiB.
IDLE_MEMORY, IDLE_CPU = 8 << 20, "1m"
#: The annotation that lists the containers in use, and what stands there behind one that must not be used again.
CELLS, SPOILT = LABEL_PREFIX + "cells", "!"
#: The annotation that says which change of those was the last.
CHANGE = LABEL_PREFIX + "change"
#: What stands there when the pod is to be deleted.
CLOSING = SPOILT
#: The label by which a NetworkPolicy selects a sandbox's pod, and the annotation of one that may do without it.
NETWORK, OPEN_NETWORK = LABEL_PREFIX + "network", LABEL_PREFIX + "may-have-network"
#: The label with the claim that has a task's files on disk, and the annotation with their name among workspaces.
DISK, TASK_FILES = LABEL_PREFIX + "disk", LABEL_PREFIX + "files"
#: The group that a task's users share in its files.
FILES_GROUP = 59_999
#: Pods that begin within the same so many seconds are spread over the nodes. One that has just come back is empty, so
#: that the scheduler would give it every new pod, and it starts only two or three a second.
SPREAD_WITHIN = 10
#: What cannot stand in a label is given as a hash of so many characters.
LABEL_MAX, HASHED = 63, 40
#: Characters of a profile's name in the name of its container.
CELL_SHOWN = 40


def impossible(profile: Profile) -> Iterator[str]:
    """Sentences on what a profile asks for and no pod can have."""
    if any(mount.source is not None for mount in profile.mounts) or profile.folder is not None:
        yield "it mounts a folder of the host, and a pod may run on any node: put the files into the image or the task"
    if any(mount.volume for mount in profile.mounts):
        yield "it mounts a volume by its name, which this engine does not make"
    if profile.own:
        yield "its user is to own folders of the image (`own`), and a pod's PID 1 may not give them away"
    if profile.disk:
        yield "it bounds its root file system (`disk`), which Kubernetes has no bound for"
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
    if profile.cap_add:
        yield f"it adds capabilities ({', '.join(profile.cap_add)}), which this engine gives to none"
    if profile.gpus:
        yield "it asks for GPUs, which this engine does not ask a cluster for yet"


def label(value: str) -> str:
    """A value that may stand in a label: itself where it may, else a hash of it."""
    plain = value.replace("-", "").replace("_", "").replace(".", "")
    has_ends = not value or (value[0].isalnum() and value[-1].isalnum())
    if len(value) <= LABEL_MAX and has_ends and (not value or (plain.isascii() and plain.isalnum())):
        return value
    return hashlib.sha256(value.encode("utf-8", "surrogatepass")).hexdigest()[:HASHED]


def labels(spec: ContainerSpec) -> dict[str, str]:
    """The spec's labels as Kubernetes has them."""
    own = {LABEL_PREFIX + key.removeprefix("taskcell.").replace("taskcell", "sandbox"): label(value)
           for key, value in spec.labels.items()}  # fmt: skip
    return own | {NETWORK: spec.profile.network}


def cell_of(profile: Profile) -> str:
    """The name of a profile's container: the profile's own with its digest, for a name has only small letters."""
    plain = "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in profile.name.lower())
    return f"c-{plain[:CELL_SHOWN]}-{hashlib.sha256(profile.name.encode()).hexdigest()[:8]}"


def manifest(spec: ContainerSpec, supervisor: str, now: float, disk: str = "") -> dict[str, Any]:
    """The pod of a task: a container for its profile, and one for each that may come beside it.

    None can be added later: an ephemeral container has no limits of its own, and never goes away.

    Arguments:
        supervisor: name of the ConfigMap that holds the supervisor.
        now: seconds since 1970.
        disk: name of the claim with the task's files; empty: they are in memory.
    """
    profile, siblings = spec.profile, siblings_of(spec)
    begun = {LABEL_PREFIX + "begun": str(int(now // SPREAD_WITHIN))}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": spec.name,
            "labels": labels(spec) | begun | ({DISK: disk} if disk else {}),
            # Empty and there: a patch that tests a key that is missing fails.
            "annotations": {
                LABEL_PREFIX + "name": "",
                CELLS: cell_of(profile),
                **({TASK_FILES: spec.workspace.name} if disk else {}),
                **({OPEN_NETWORK: "yes"} if "network" in spec.allow_unenforced else {}),
                "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
            },
        },
        "spec": {
            # A supervisor that dies is started again beside the same files; one that ends with 0 has ended for good.
            "restartPolicy": "OnFailure",
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "hostname": profile.hostname or "sandbox",
            "hostAliases": [{"ip": address, "hostnames": [name]} for name, address in profile.hosts],
            "terminationGracePeriodSeconds": POD_GRACE,
            "activeDeadlineSeconds": DEADLINE,
            "dnsPolicy": "None",
            "dnsConfig": {"nameservers": ["127.0.0.1"]},
            **({"runtimeClassName": profile.runtime} if profile.runtime else {}),
            "nodeSelector": {"kubernetes.io/arch": architecture(profile)},
            **({"affinity": _beside(disk)} if disk else {}),
            "topologySpreadConstraints": [_spread(begun)],
            "securityContext": _context(spec, disk),
            "containers": [
                _cell(spec, profile, spec.claim_within, (REQUESTED_MEMORY, REQUESTED_CPU)),
                *(_cell(spec, one, DEADLINE, (IDLE_MEMORY, IDLE_CPU)) for one in siblings),
            ],
            "volumes": [*_volumes(spec, supervisor, disk, (profile, *siblings))],
        },
    }


def _context(spec: ContainerSpec, disk: str) -> dict[str, Any]:
    context: dict[str, Any] = {"seccompProfile": {"type": "RuntimeDefault"}}
    if _has_group(spec):  # the kubelet gives the workspace to the group, and what is made in it inherits that
        context |= {"fsGroup": FILES_GROUP, **({"fsGroupChangePolicy": "OnRootMismatch"} if disk else {})}
    return context


def _has_group(spec: ContainerSpec) -> bool:
    """Whether the users of its commands share a group: a new file system on disk belongs to root."""
    return spec.shares_files or spec.workspace.persistent


def _beside(disk: str) -> dict[str, Any]:
    """On the node of the task's other pods, which alone can mount the claim. The first one may be anywhere."""
    term = {"labelSelector": {"matchLabels": {DISK: disk}}, "topologyKey": "kubernetes.io/hostname"}
    return {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}


def _spread(begun: Mapping[str, str]) -> Mapping[str, Any]:
    """Count the pods that begin together, and not those that run: these would lead all new ones to an empty node."""
    return {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": begun},
    }


def siblings_of(spec: ContainerSpec) -> list[Profile]:
    """The profiles that can have a container beside the spec's own."""
    own = spec.profile
    return [
        one
        for one in spec.siblings()
        if one.name != own.name and one.runtime == own.runtime and architecture(one) == architecture(own)
        and not list(impossible(one))
    ]  # fmt: skip


def architecture(profile: Profile) -> str:
    """The machine that a profile's image is for, as Kubernetes writes it."""
    return profile.platform.partition("/")[2] or "amd64"


def _cell(spec: ContainerSpec, profile: Profile, claim_within: float, requested: tuple[int, str]) -> dict[str, Any]:
    limits = {
        "memory": profile.memory and str(profile.memory),
        "cpu": profile.cpus and f"{round(profile.cpus * 1000)}m",
    }
    memory, cpu = requested
    added = sorted({*KEPT_CAPABILITIES, *(root_capabilities(profile) if profile.sudo else ())})
    return {
        "name": cell_of(profile),
        "image": profile.image,
        # A kubelet says nothing of a pod before it has tried every image: one that is nowhere would hold up the others.
        "imagePullPolicy": "IfNotPresent" if profile.image == spec.profile.image else "Never",
        "workingDir": "/",
        "command": [*_supervising(spec, profile, claim_within)],
        "volumeMounts": [*_mounts(profile, spec.workspace.persistent)],
        "resources": {
            "limits": {key: value for key, value in limits.items() if value},
            "requests": {"memory": str(min(profile.memory or memory, memory)), "cpu": cpu},
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


def _supervising(spec: ContainerSpec, profile: Profile, claim_within: float) -> Iterator[str]:
    yield from (SUPERVISOR, "init", "--socket", POD_SOCKET, "--claim", str(round(claim_within * 1000)), "--stays")
    if _has_group(spec):
        yield from ("--group", str(FILES_GROUP))
        if spec.workspace.persistent:
            yield from ("--shared", WORKSPACE)
    for mount in profile.tmpfs:  # an emptyDir has no mode but 0777
        yield from ("--mode", f"{mount.mode:o}:{mount.target}")


def _mounts(profile: Profile, on_disk: bool) -> Iterator[Mapping[str, Any]]:
    yield {"name": "supervisor", "mountPath": SUPERVISOR_FOLDER, "readOnly": True}
    # Below the file system's root, which has a `lost+found` that nobody but root may read.
    files = {"name": "workspace", **({"subPath": "files"} if on_disk else {})}
    yield files | {"mountPath": WORKSPACE, "readOnly": profile.is_reader}
    for mount in profile.mounts:  # another place of the task's files
        yield files | {"mountPath": mount.target, "readOnly": mount.read_only}
    for number, one in enumerate(profile.tmpfs):
        yield {"name": _memory_name(profile, number), "mountPath": one.target}


def _volumes(
    spec: ContainerSpec, supervisor: str, disk: str, profiles: Sequence[Profile]
) -> Iterator[Mapping[str, Any]]:
    yield {"name": "supervisor", "configMap": {"name": supervisor, "defaultMode": 0o555}}
    files = {"persistentVolumeClaim": {"claimName": disk}} if disk else {"emptyDir": _memory(spec.workspace.size)}
    yield {"name": "workspace", **files}
    for profile in profiles:
        for number, one in enumerate(profile.tmpfs):
            yield {"name": _memory_name(profile, number), "emptyDir": _memory(one.size)}


def _memory_name(profile: Profile, number: int) -> str:
    return f"{cell_of(profile)}-{number}"


def _memory(size: int) -> dict[str, str]:
    return {"medium": "Memory", "sizeLimit": str(size)}
