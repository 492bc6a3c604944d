"""What admission webhooks and plugins do to a pod: what breaks a sandbox's promises is refused, all else works."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import pytest

from api_server import api_server
from pool_slots import POLICY
from taskcell.config.settings import Settings
from taskcell.engine.base import ContainerSpec, Standing, Workspace
from taskcell.engine.kubernetes import pod, status
from taskcell.engine.kubernetes.admission import changes
from taskcell.engine.kubernetes.pods import Pods
from taskcell.errors import EngineError
from taskcell.model import Profile
from taskcell.mounts import Tmpfs
from taskcell.profile.build import terminal_profile

pytestmark = pytest.mark.anyio

PLAIN = terminal_profile(Settings())
PROFILE = Profile(
    **{field.name: getattr(PLAIN, field.name) for field in fields(Profile)}
    | {"memory": 256 << 20, "cpus": 1.5, "tmpfs": (Tmpfs("/tmp", 1 << 20),)}
)
LABELS = {"taskcell": "1", "taskcell.deployment": "d", "taskcell.instance": "i"}
SPEC = ContainerSpec(POLICY.authorize_profile(PROFILE), "taskcell-1", Workspace(1 << 20), LABELS, 60.0)
ASKED = pod.manifest(SPEC, "taskcell-supervisor-1", 1000.0)
CELL = pod.cell_of(PROFILE)
Pod = dict[str, Any]


def made(change: Callable[[Pod, Pod], object]) -> Pod:
    """The pod after an admission that changes it, or its container, in place."""
    found = copy.deepcopy(ASKED)
    change(found, found["spec"]["containers"][0])
    return found


def mount(name: str, path: str, **kind: Any) -> Callable[[Pod, Pod], object]:
    def add(found: Pod, cell: Pod) -> None:
        found["spec"]["volumes"].append({"name": name, **kind})
        cell["volumeMounts"].append({"name": name, "mountPath": path, "readOnly": True})

    return add


TOKEN = {"sources": [{"serviceAccountToken": {"path": "token"}}, {"configMap": {"name": "kube-root-ca.crt"}}]}
SIDECAR = {"name": "istio-proxy", "image": "istio/proxyv2", "securityContext": {"privileged": True}}

HARMLESS: dict[str, Callable[[Pod, Pod], object]] = {
    "nothing": lambda found, cell: None,
    "a sidecar before ours": lambda found, cell: found["spec"]["containers"].insert(0, SIDECAR),
    "an init container": lambda found, cell: found["spec"].update(initContainers=[SIDECAR]),
    "labels and annotations": lambda found, cell: (
        found["metadata"]["labels"].update({"security.istio.io/tlsMode": "istio"}),
        found["metadata"]["annotations"].update({"linkerd.io/inject": "enabled"}),
    ),
    "tolerations and a priority": lambda found, cell: found["spec"].update(
        tolerations=[{"operator": "Exists"}], priorityClassName="high", priority=1000, preemptionPolicy="Never"
    ),
    "a service account": lambda found, cell: found["spec"].update(serviceAccountName="default"),
    "another registry": lambda found, cell: cell.update(image="mirror.test/base:1", imagePullPolicy="Always"),
    "lower limits and requests": lambda found, cell: cell["resources"].update(
        limits={"memory": "128Mi", "cpu": "500m", "ephemeral-storage": "1Gi"}, requests={"memory": "128Mi"}
    ),
    "quantities in other words": lambda found, cell: (
        cell["resources"]["limits"].update(memory="256Mi", cpu="1.5"),
        found["spec"]["volumes"][1]["emptyDir"].update(sizeLimit="1Mi"),
    ),
    "plain variables": lambda found, cell: cell.update(env=[{"name": "HTTP_PROXY", "value": "http://proxy.test"}]),
    "a certificate authority": mount("ca", "/etc/ssl/certs/own.pem", configMap={"name": "ca"}),
    "a volume of a sidecar": lambda found, cell: found["spec"]["volumes"].append({"name": "x", "projected": TOKEN}),
    "defaults": lambda found, cell: (
        found["spec"].update(schedulerName="default-scheduler", dnsPolicy="None", hostUsers=False),
        cell.update(terminationMessagePath="/dev/termination-log"),
        cell["securityContext"].update(procMount="Default"),
        cell["securityContext"].pop("privileged"),
        cell["volumeMounts"][1].pop("readOnly"),
    ),
    "SELinux's level": lambda found, cell: cell["securityContext"].update(seLinuxOptions={"level": "s0:c1,c2"}),
    "fields of the future": lambda found, cell: (
        found["spec"].update(resources={"limits": {"memory": "1Gi"}}, novel={"x": 1}),
        cell.update(resizePolicy=[{"resourceName": "cpu", "restartPolicy": "NotRequired"}]),
    ),
}


@pytest.mark.parametrize("change", HARMLESS.values(), ids=HARMLESS)
def test_what_is_harmless_is_left(change: Callable[[Pod, Pod], object]) -> None:
    assert list(changes(ASKED, made(change))) == []


HARMFUL: dict[str, tuple[Callable[[Pod, Pod], object], str]] = {
    "host network": (lambda found, cell: found["spec"].update(hostNetwork=True), "has hostNetwork"),
    "shared processes": (lambda f, c: f["spec"].update(shareProcessNamespace=True), "has shareProcessNamespace"),
    "no pod context": (lambda found, cell: found["spec"].update(securityContext={}), "has no seccompProfile"),
    "unconfined": (
        lambda found, cell: cell["securityContext"].update(seccompProfile={"type": "Unconfined"}),
        "has its own seccompProfile",
    ),
    "no context": (lambda found, cell: cell.pop("securityContext"), "allowPrivilegeEscalation None"),
    "privileged": (lambda found, cell: cell["securityContext"].update(privileged=True), "has privileged True"),
    "another user": (
        lambda found, cell: cell["securityContext"].update(runAsUser=1000650000),
        "has runAsUser 10006500",
    ),
    "no root": (lambda found, cell: found["spec"]["securityContext"].update(runAsNonRoot=True), "has runAsNonRoot"),
    "writable root": (
        lambda found, cell: cell["securityContext"].pop("readOnlyRootFilesystem"),
        "has readOnlyRootFilesystem None",
    ),
    "capabilities": (
        lambda found, cell: cell["securityContext"]["capabilities"]["add"].append("SYS_ADMIN"),
        "has the capabilities KILL, SETGID, SETPCAP, SETUID, SYS_ADMIN",
    ),
    "kept capabilities": (
        lambda found, cell: cell["securityContext"]["capabilities"].pop("drop"),
        "keeps capabilities",
    ),
    "unmasked /proc": (
        lambda found, cell: cell["securityContext"].update(procMount="Unmasked"),
        "has its own procMount",
    ),
    "SELinux's type": (
        lambda found, cell: cell["securityContext"].update(seLinuxOptions={"type": "spc_t"}),
        "has its own seLinuxOptions",
    ),
    "no AppArmor": (
        lambda found, cell: found["metadata"]["annotations"].update(
            {f"container.apparmor.security.beta.kubernetes.io/{CELL}": "unconfined"}
        ),
        "has the annotation container.apparmor",
    ),
    "a token": (
        mount("kube-api-access", "/var/run/secrets/kubernetes.io/serviceaccount", projected=TOKEN),
        "has the volume 'kube-api-access' at /var/run/secrets",
    ),
    "a secret": (mount("vault", "/vault/secrets", secret={"secretName": "s"}), "has the volume 'vault'"),
    "a folder of the node": (mount("host", "/host", hostPath={"path": "/"}), "has the volume 'host' at /host"),
    "our volume at another place": (
        lambda found, cell: cell["volumeMounts"].append({"name": "workspace", "mountPath": "/elsewhere"}),
        "has the volume 'workspace' at /elsewhere",
    ),
    "a secret as a variable": (
        lambda found, cell: cell.update(
            env=[{"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]
        ),
        "gets a secret as KEY",
    ),
    "secrets as variables": (
        lambda found, cell: cell.update(envFrom=[{"secretRef": {"name": "s"}}]),
        "gets a secret as variables",
    ),
    "another program": (
        lambda found, cell: cell.update(command=["/vault/vault-env", *cell["command"]]),
        "runs another program than the supervisor",
    ),
    "arguments": (lambda found, cell: cell.update(args=["--x"]), "runs another program"),
    "more memory": (lambda found, cell: cell["resources"]["limits"].update(memory="1Gi"), "may use more memory than"),
    "no bound on memory": (lambda found, cell: cell["resources"]["limits"].pop("memory"), "may use more memory than"),
    "no bound on the processor": (lambda found, cell: cell["resources"].pop("limits"), "may use more cpu than 1500m"),
    "a size that is none": (lambda f, c: c["resources"]["limits"].update(memory="lots"), "may use more memory than"),
    "files on the node's disk": (
        lambda found, cell: found["spec"]["volumes"].__setitem__(1, {"name": "workspace", "emptyDir": {}}),
        "has another volume 'workspace'",
    ),
    "another supervisor": (
        lambda found, cell: found["spec"]["volumes"][0]["configMap"].update(name="other"),
        "has another volume 'supervisor'",
    ),
    "a supervisor that can be written": (
        lambda found, cell: cell["volumeMounts"][0].update(readOnly=False),
        "has something else at /.taskcell",
    ),
    "no container of ours": (lambda found, cell: found["spec"].update(containers=[SIDECAR]), "lacks the container"),
    "a label that is gone": (
        lambda found, cell: found["metadata"]["labels"].pop(pod.NETWORK),
        "has not the label taskcell.dev/network",
    ),
    "annotations that are gone": (
        lambda found, cell: found["metadata"].pop("annotations"),
        "has not the annotation taskcell.dev/cells",
    ),
    "restarts for ever": (lambda f, c: f["spec"].update(restartPolicy="Always"), "has the restartPolicy Always"),
}


@pytest.mark.parametrize(("change", "why"), HARMFUL.values(), ids=HARMFUL)
def test_what_breaks_a_promise_is_named(change: Callable[[Pod, Pod], object], why: str) -> None:
    assert any(why in one for one in changes(ASKED, made(change)))


async def test_a_pod_that_was_changed_so_is_removed_at_once_and_the_error_says_what_to_do() -> None:
    async with api_server() as server:
        api = server.api()
        server.admission = lambda body: body | {"spec": body["spec"] | {"hostNetwork": True}}
        with pytest.raises(EngineError, match=r"it has hostNetwork\. The cluster's administrator must have"):
            await Pods(api).make(SPEC, "")
        assert not server.all("pods")
        server.admission = lambda body: body | {"spec": with_sidecar(body["spec"])}
        found = await Pods(api).make(SPEC, "")
        assert [one["name"] for one in found["spec"]["containers"]] == ["istio-proxy", CELL]
        await api.aclose()


def with_sidecar(spec: Pod) -> Pod:
    return spec | {"containers": [SIDECAR, *spec["containers"]]}


# --- a pod with containers of others ---------------------------------------------------------------------------------


def running(**sidecar: Any) -> Pod:
    """The pod with a sidecar before ours, which runs."""
    found = made(HARMLESS["a sidecar before ours"])
    found["metadata"] |= {"uid": "u", "creationTimestamp": "2026-01-01T00:00:00Z"}
    found["metadata"]["annotations"][pod.CELLS] = ""
    ours = {"name": CELL, "ready": True, "restartCount": 0, "state": {"running": {}}}
    found["status"] = {"phase": "Running", "containerStatuses": [{"name": "istio-proxy", **sidecar}, ours]}
    return found


@pytest.mark.parametrize(
    "sidecar",
    [
        {"restartCount": 7, "state": {"waiting": {"reason": "CrashLoopBackOff"}}},
        {"restartCount": 0, "state": {"waiting": {"reason": "ImagePullBackOff"}}},
        {"restartCount": 0, "ready": False, "state": {"running": {}}},
        {"restartCount": 0, "state": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}},
    ],
    ids=["crashes", "has no image", "is never ready", "ran out of memory"],
)
def test_a_sidecar_decides_nothing(sidecar: dict[str, Any]) -> None:
    found = running(**sidecar)
    assert status.has_started(found, CELL)
    assert status.standing_of_cell(found, CELL, 0) is Standing.RUNS
    assert "memory" not in status.why_ended(found, CELL)
    (listed,) = status.listed(found)
    assert listed.id == f"taskcell-1/u/{CELL}/0"


def test_a_container_that_keeps_ours_from_its_start_is_named() -> None:
    waits = {"ready": False, "state": {"waiting": {"reason": "CrashLoopBackOff"}}}
    found = running(ready=False, state={"running": {}})
    found["status"]["initContainerStatuses"] = [{"name": "istio-init", **waits}]
    assert status.held_up_by(found) == "istio-init (CrashLoopBackOff), istio-proxy (not ready)"
    assert status.held_up_by({}) == ""
