"""Pod Security Admission, which Kubernetes has from 1.23 on, as the webhook that its project has for older clusters.

What is checked of a pod is what the Pod Security Standards say of the fields that taskcell's pods may set.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import admission
from taskcell.engine.kubernetes.api import Api

#: The label by which a namespace asks for a level.
ENFORCE = "pod-security.kubernetes.io/enforce"
#: What a container may add at "baseline".
BASELINE_CAPABILITIES = frozenset(
    ("AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE", "SETFCAP",
     "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT")
)  # fmt: skip
RESTRICTED_VOLUMES = frozenset(("configMap", "emptyDir", "persistentVolumeClaim", "projected", "secret"))


def violations(pod: dict[str, Any], level: str) -> Iterator[str]:
    spec = pod["spec"]
    yield from _baseline(spec)
    if level == "restricted":
        yield from _restricted(spec)


def _baseline(spec: dict[str, Any]) -> Iterator[str]:
    if any(spec.get(key) for key in ("hostNetwork", "hostPID", "hostIPC")):
        yield "host namespaces"
    if any("hostPath" in volume for volume in spec.get("volumes", ())):
        yield "hostPath volumes"
    for name, context in _contexts(spec):
        if context.get("privileged"):
            yield f'privileged (container "{name}" must not set securityContext.privileged=true)'
        if set(context.get("capabilities", {}).get("add", ())) - BASELINE_CAPABILITIES:
            yield f'non-default capabilities (container "{name}")'


def _restricted(spec: dict[str, Any]) -> Iterator[str]:
    if any(set(volume) - {"name"} - RESTRICTED_VOLUMES for volume in spec.get("volumes", ())):
        yield "restricted volume types"
    for name, context in _contexts(spec):
        if context.get("allowPrivilegeEscalation") is not False:
            yield f'allowPrivilegeEscalation != false (container "{name}")'
        capabilities = context.get("capabilities", {})
        if "ALL" not in capabilities.get("drop", ()) or set(capabilities.get("add", ())) - {"NET_BIND_SERVICE"}:
            yield f'unrestricted capabilities (container "{name}" must set securityContext.capabilities.drop=["ALL"])'
        if not {**spec.get("securityContext", {}), **context}.get("runAsNonRoot"):
            yield f'runAsNonRoot != true (pod or container "{name}" must set securityContext.runAsNonRoot=true)'
        if context.get("runAsUser") == 0:
            yield f'runAsUser=0 (container "{name}" must not set runAsUser=0)'
        seccomp = {**spec.get("securityContext", {}), **context}.get("seccompProfile", {}).get("type")
        if seccomp not in ("RuntimeDefault", "Localhost"):
            yield f'seccompProfile (pod or container "{name}" must set securityContext.seccompProfile.type)'


def _contexts(spec: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for container in spec["containers"]:
        yield container["name"], container.get("securityContext", {})


@asynccontextmanager
async def enforced(admin: Api, level: str, folder: Path) -> AsyncIterator[None]:
    """The namespace of `admin` enforces a level: `baseline` or `restricted`."""

    def review(request: dict[str, Any]) -> str:
        found, name = "; ".join(violations(request["object"], level)), request["object"]["metadata"].get("name", "")
        return found and f'pods "{name}" is forbidden: violates PodSecurity "{level}:latest": {found}'

    await _label(admin, f"/api/v1/namespaces/{admin.cluster.namespace}", level)
    async with admission.reviewed(admin, folder, review, ["pods"]):
        yield


async def _label(admin: Api, path: str, level: str) -> None:
    await admin.call("PATCH", path, {"metadata": {"labels": {ENFORCE: level}}}, "application/merge-patch+json")
