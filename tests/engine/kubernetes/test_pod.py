"""The pod that a profile becomes: the same protections as a container's, and a plain no where there are none."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from typing import Any

import pytest

from pool_slots import POLICY
from taskcell.config.settings import Settings
from taskcell.engine.base import ContainerSpec, Workspace
from taskcell.engine.kubernetes import pod, status
from taskcell.engine.kubernetes.disks import claim_of
from taskcell.model import Profile
from taskcell.mounts import Mount, Tmpfs
from taskcell.profile.build import terminal_profile

PLAIN = terminal_profile(Settings())
#: Seconds since 1970.
NOW = 1_795_788_003.5


def profile(**changes: Any) -> Profile:
    return Profile(**{field.name: getattr(PLAIN, field.name) for field in fields(Profile)} | changes)


def spec(**changes: Any) -> ContainerSpec:
    labels = {"taskcell": "1", "taskcell.deployment": "a deployment", "taskcell.instance": "i-1"}
    return ContainerSpec(POLICY.authorize_profile(profile(**changes)), "taskcell-x", Workspace(1 << 20), labels, 60.0)


def test_a_sandbox_has_the_protections_of_a_container() -> None:
    made = pod.manifest(spec(), "taskcell-supervisor-1", NOW)["spec"]
    (cell,) = made["containers"]
    assert cell["securityContext"]["capabilities"] == {"drop": ["ALL"], "add": ["KILL", "SETGID", "SETPCAP", "SETUID"]}
    assert cell["securityContext"]["allowPrivilegeEscalation"] is False
    assert cell["securityContext"]["readOnlyRootFilesystem"] is True
    assert made["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert made["automountServiceAccountToken"] is False
    assert made["enableServiceLinks"] is False
    assert cell["resources"]["limits"] == {"memory": str(PLAIN.memory), "cpu": "1000m"}
    assert cell["command"][4:6] == ["--claim", "60000"]


def test_what_is_in_memory_is_bounded() -> None:
    made = pod.manifest(spec(tmpfs=(Tmpfs("/tmp", 1 << 22),)), "s", NOW)["spec"]
    bounds = {one["name"]: one["emptyDir"] for one in made["volumes"] if "emptyDir" in one}
    assert bounds == {
        "workspace": {"medium": "Memory", "sizeLimit": str(1 << 20)},
        f"{pod.cell_of(PLAIN)}-0": {"medium": "Memory", "sizeLimit": str(1 << 22)},
    }
    mounts = {one["name"]: one["mountPath"] for one in made["containers"][0]["volumeMounts"]}
    assert mounts == {"supervisor": "/.taskcell", "workspace": "/workspace", f"{pod.cell_of(PLAIN)}-0": "/tmp"}


def test_pods_are_spread_among_those_that_begin_within_the_same_ten_seconds_alone() -> None:
    made = [pod.manifest(spec(), "s", NOW + later) for later in (0.0, 6.0, 7.0)]
    counted = [one["spec"]["topologySpreadConstraints"][0]["labelSelector"]["matchLabels"] for one in made]
    assert counted[0] == counted[1] != counted[2]
    for one, labels in zip(made, counted, strict=True):
        assert labels.items() <= one["metadata"]["labels"].items()
        assert one["spec"]["topologySpreadConstraints"][0]["whenUnsatisfiable"] == "ScheduleAnyway"


def test_labels_are_what_kubernetes_takes() -> None:
    labels = pod.labels(spec())
    assert labels["taskcell.dev/instance"] == "i-1"
    assert labels["taskcell.dev/network"] == "none"
    assert len(labels["taskcell.dev/deployment"]) == pod.HASHED
    assert pod.label("x" * 64) != "x" * 64
    assert all(pod.label(value) != value for value in ("-x", "x-", "_x", ".x", "x.", "²", "a b"))


def test_each_profile_that_may_come_has_a_container_beside_the_first() -> None:
    skill = profile(name="A_skill", kind="skill", entrypoint=("x",), is_reader=True)
    no_room = (profile(name="far", runtime="r"), profile(name="own", kind="skill", entrypoint=None), profile())
    siblings = [POLICY.authorize_profile(one) for one in (skill, *no_room)]
    asked = replace(spec(), siblings=lambda: siblings, shares_files=True)
    made = pod.manifest(asked, "map", NOW)
    first, second = made["spec"]["containers"]
    assert made["metadata"]["annotations"][pod.CELLS] == first["name"] == pod.cell_of(PLAIN)
    assert second["name"].startswith("c-a-skill-")
    assert second["resources"]["requests"] == {"memory": str(8 << 20), "cpu": "1m"}
    assert {"name": "workspace", "mountPath": "/workspace", "readOnly": True} in second["volumeMounts"]
    assert made["spec"]["securityContext"]["fsGroup"] == pod.FILES_GROUP
    assert "--group" in first["command"]
    names = [volume["name"] for volume in made["spec"]["volumes"]]
    assert len(names) == len(set(names))


def test_files_on_disk_are_a_claim_that_the_tasks_pods_mount_on_one_node() -> None:
    name = "taskcell-data-d-0123456789abcdef"
    asked = replace(spec(), workspace=Workspace(1 << 20, name, persistent=True))
    made = pod.manifest(asked, "map", NOW, claim_of(name))
    assert made["metadata"]["labels"][pod.DISK] == claim_of(name) == name
    assert made["metadata"]["annotations"][pod.TASK_FILES] == name
    assert {"name": "workspace", "persistentVolumeClaim": {"claimName": name}} in made["spec"]["volumes"]
    (term,) = made["spec"]["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert term["labelSelector"]["matchLabels"] == {pod.DISK: name}
    mount = next(one for one in made["spec"]["containers"][0]["volumeMounts"] if one["mountPath"] == "/workspace")
    assert mount["subPath"] == "files"  # a new file system has a folder `lost+found`
    assert made["spec"]["securityContext"]["fsGroup"] == pod.FILES_GROUP
    in_memory = pod.manifest(spec(), "map", NOW)
    assert "affinity" not in in_memory["spec"]
    assert pod.DISK not in in_memory["metadata"]["labels"]


@pytest.mark.parametrize("name", ["taskcell-data-A_b-1", "taskcell-data-" + "d" * 63 + "-1", "-"])
def test_a_claim_has_a_name_that_kubernetes_takes(name: str) -> None:
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", claim_of(name))
    assert claim_of(name) != claim_of(name + "x")


def test_why_a_pod_waits_is_what_the_scheduler_says() -> None:
    said = {"type": "PodScheduled", "status": "False", "message": "0/2 nodes are available"}
    assert status.why_waits({"status": {"conditions": [said]}}) == "0/2 nodes are available"
    assert status.why_waits({"status": {"conditions": [said | {"status": "True"}]}}) == ""
    assert status.why_waits({}) == ""


def test_names_of_containers_are_what_kubernetes_takes_and_differ() -> None:
    names = [pod.cell_of(profile(name=name)) for name in ("a", "A", "a.b", "a-b", "x" * 100)]
    assert len(set(names)) == 5
    assert all(re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", name) for name in names)


def test_file_systems_in_memory_get_their_modes_from_the_supervisor() -> None:
    tmpfs = (Tmpfs("/tmp", 1 << 20), Tmpfs("/own", 1 << 20, mode=0o700))
    words = pod.manifest(spec(tmpfs=tmpfs), "map", NOW)["spec"]["containers"][0]["command"]
    assert words[-4:] == ["--mode", "1777:/tmp", "--mode", "700:/own"]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"mounts": (Mount("/srv", "/srv"),)}, "folder of the host"),
        ({"host_namespaces": ("ipc",)}, "the host's ipc"),
        ({"network": "bridge"}, "its network is 'bridge'"),
        ({"remove": False}, "keeps a stopped container"),
        ({"gpus": "all"}, "asks for GPUs"),
        ({"mounts": (Mount(None, "/c", volume="cache"),)}, "a volume by its name"),
        ({"own": ("/opt/x",)}, "`own`"),
        ({"disk": 1 << 30}, "`disk`"),
        ({"cap_add": ("CHOWN",)}, "adds capabilities (CHOWN)"),
        ({"kind": "skill", "entrypoint": None}, "name it in `entrypoint`"),
    ],
)
def test_what_no_pod_has_is_refused_in_a_sentence(changes: dict[str, Any], why: str) -> None:
    (fault,) = pod.impossible(profile(**changes))
    assert why in fault
    assert not list(pod.impossible(profile()))
