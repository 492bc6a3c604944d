"""What a cluster made of a sandbox's pod, beside what it was asked for. Pure.

Admission webhooks and plugins change pods when they are made: they add containers, volumes, variables and tolerations,
set limits, and replace security contexts. Most of that is harmless. What a sandbox promises is looked for in the pod
as it is, so that one without it is never used.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

from taskcell.engine.kubernetes import pod

Part = Mapping[str, Any]

#: Namespaces that a pod must not share: of the node, and among its containers, where a supervisor is PID 1.
_SHARED = ("hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace")
#: Kinds of volumes that hold no secret and no place of the node.
_HARMLESS = frozenset({"emptyDir", "configMap", "downwardAPI"})
#: What a container's own security context may say beside what was asked for: the pod's is what holds.
_OVERRIDES = ("seccompProfile", "appArmorProfile", "procMount", "runAsNonRoot")
_APPARMOR = "container.apparmor.security.beta.kubernetes.io/"
_CONFINED = frozenset({"RuntimeDefault", "Localhost"})
#: The suffixes of quantities.
_SUFFIXES = {
    **{f"{letter}i": Decimal(1024) ** power for power, letter in enumerate("KMGTPE", 1)},
    **{letter: Decimal(1000) ** power for power, letter in enumerate("kMGTPE", 1)},
    "m": Decimal("0.001"), "u": Decimal("0.000001"), "n": Decimal("0.000000001"),
}  # fmt: skip


def changes(asked: Part, made: Part) -> Iterator[str]:
    """What of a pod is not as a sandbox needs it; each is the rest of a sentence that begins with the pod."""
    wanted, found = asked["spec"], made["spec"]
    for key in _SHARED:
        if found.get(key):
            yield f"has {key}"
    if wanted.get("runtimeClassName") and found.get("runtimeClassName") != wanted["runtimeClassName"]:
        yield f"has not the runtimeClassName {wanted['runtimeClassName']}"
    if found.get("restartPolicy") != wanted["restartPolicy"]:
        yield f"has the restartPolicy {found.get('restartPolicy')}"
    yield from _context_changes(wanted["securityContext"], found.get("securityContext") or {})
    yield from _lost(asked["metadata"], made["metadata"])
    volumes = {one["name"]: one for one in found.get("volumes") or ()}
    for one in wanted["volumes"]:
        if not _covers(one, volumes.get(one["name"], {})):
            yield f"has another volume '{one['name']}'"
    cells = {one["name"]: one for one in found["containers"]}
    added = {name: one for name, one in volumes.items() if name not in {each["name"] for each in wanted["volumes"]}}
    for one in wanted["containers"]:
        if one["name"] not in cells:
            yield f"lacks the container {one['name']}"
        else:
            for change in _cell_changes(one, cells[one["name"]], added):
                yield f"has a container {one['name']} that {change}"


def _context_changes(wanted: Part, found: Part) -> Iterator[str]:
    if (found.get("seccompProfile") or {}).get("type") not in _CONFINED:
        yield "has no seccompProfile"
    if (found.get("appArmorProfile") or {}).get("type") == "Unconfined":
        yield "has no appArmorProfile"
    if found.get("runAsNonRoot"):
        yield "has runAsNonRoot, and its supervisor is root"
    if wanted.get("fsGroup") and found.get("fsGroup") != wanted["fsGroup"]:
        yield f"has the fsGroup {found.get('fsGroup')}"


def _lost(wanted: Part, found: Part) -> Iterator[str]:
    for kind in ("labels", "annotations"):
        has = found.get(kind) or {}
        for key, value in wanted[kind].items():
            if key.startswith(pod.LABEL_PREFIX) and has.get(key) != value:
                yield f"has not the {kind[:-1]} {key}"
    for key, value in (found.get("annotations") or {}).items():
        if key.startswith(_APPARMOR) and value == "unconfined":
            yield f"has the annotation {key}"


def _cell_changes(wanted: Part, found: Part, added: Mapping[str, Part]) -> Iterator[str]:
    if found.get("command") != wanted["command"] or found.get("args"):
        yield "runs another program than the supervisor"
    if found.get("workingDir") != wanted["workingDir"]:
        yield f"starts in {found.get('workingDir')}"
    yield from _privileges(wanted["securityContext"], found.get("securityContext") or {})
    limits = (found.get("resources") or {}).get("limits") or {}
    for key, value in wanted["resources"]["limits"].items():
        most, is_now = _quantity(value), _quantity(limits.get(key))
        if most is None or is_now is None or is_now > most:
            yield f"may use more {key} than {value}"
    mounts = {one["mountPath"]: one for one in found.get("volumeMounts") or ()}
    for one in wanted["volumeMounts"]:
        if not _covers({"readOnly": False, "subPath": ""} | one, {"readOnly": False, "subPath": ""}
                       | mounts.pop(one["mountPath"], {})):  # fmt: skip
            yield f"has something else at {one['mountPath']}"
    for path, one in mounts.items():
        if not _is_harmless(added.get(one["name"], {})):
            yield f"has the volume '{one['name']}' at {path}"
    if found.get("volumeDevices"):
        yield "has a device"
    yield from (f"gets a secret as {name}" for name in _secrets(found))


def _privileges(wanted: Part, found: Part) -> Iterator[str]:
    for key in ("runAsUser", "runAsGroup", "privileged", "allowPrivilegeEscalation", "readOnlyRootFilesystem"):
        is_off = wanted[key] is False and key != "allowPrivilegeEscalation" and not found.get(key)
        if found.get(key) != wanted[key] and not is_off:
            yield f"has {key} {found.get(key)}"
    capabilities = found.get("capabilities") or {}
    if "ALL" not in (capabilities.get("drop") or ()):
        yield "keeps capabilities"
    if set(capabilities.get("add") or ()) != set(wanted["capabilities"]["add"]):
        yield f"has the capabilities {', '.join(capabilities.get('add') or ()) or 'none'}"
    for key in _OVERRIDES:
        own = found.get(key)
        is_confined = isinstance(own, Mapping) and own.get("type") in _CONFINED
        if own and own != "Default" and not is_confined:
            yield f"has its own {key}"
    if set(found.get("seLinuxOptions") or ()) - {"level"}:
        yield "has its own seLinuxOptions"


def _is_harmless(volume: Part) -> bool:
    """Whether a container may have a volume that was added: one of ours at another place may not be."""
    kinds = set(volume) - {"name"}
    if kinds == {"projected"}:
        kinds = {kind for one in volume["projected"].get("sources") or () for kind in one}
    return bool(kinds) and kinds <= _HARMLESS


def _secrets(found: Part) -> Iterator[str]:
    for one in found.get("env") or ():
        if "secretKeyRef" in (one.get("valueFrom") or {}):
            yield str(one["name"])
    if any("secretRef" in one for one in found.get("envFrom") or ()):
        yield "variables"


def _covers(wanted: Any, found: Any) -> bool:
    """Whether something has all that was asked for; the cluster adds defaults."""
    if isinstance(wanted, Mapping):
        return isinstance(found, Mapping) and all(_covers(value, found.get(key)) for key, value in wanted.items())
    if isinstance(wanted, Sequence) and not isinstance(wanted, str):
        return bool(list(wanted) == found)
    if wanted == found:
        return True
    size = _quantity(wanted)  # a cluster writes sizes in its own way
    return size is not None and size == _quantity(found)


def _quantity(text: object) -> Decimal | None:
    """The number that a quantity of Kubernetes is; None for what is none."""
    plain = str(text)
    number, suffix = next(((plain[: -len(end)], end) for end in _SUFFIXES if plain.endswith(end)), (plain, ""))
    try:
        return Decimal(number) * _SUFFIXES.get(suffix, Decimal(1))
    except InvalidOperation:
        return None
