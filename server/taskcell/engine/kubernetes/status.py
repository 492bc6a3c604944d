"""What the API says about a pod, in taskcell's words. Pure."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from datetime import datetime
from typing import Any

from taskcell.engine.base import ListedContainer, Standing
from taskcell.engine.kubernetes import pod
from taskcell.errors import EngineError, EngineUnavailable, ImageMissing

#: Why a container cannot start, so that waiting is of no use, in Kubernetes' words.
_NO_IMAGE = frozenset({"ErrImageNeverPull", "InvalidImageName", "ImagePullBackOff", "ErrImagePull"})
_HOPELESS = _NO_IMAGE | {"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}
_NEVER_PULLED = (
    ". Beside another sandbox of its task it is not pulled: have it on the nodes (a DaemonSet with that image), or use "
    "the skill in a task of its own."
)
_ENDED = frozenset({"Succeeded", "Failed"})


def _seconds(time_of: str) -> float:
    return datetime.fromisoformat(time_of.replace("Z", "+00:00")).timestamp()


def items_of(found: dict[str, Any]) -> list[dict[str, Any]]:
    """The objects of a list, without those that lack a name or a uid."""
    return [one for one in found.get("items") or () if is_whole(one)]


def is_whole(found: object) -> bool:
    """Whether something has what every object of Kubernetes has."""
    meta = found.get("metadata") if isinstance(found, dict) else None
    return isinstance(meta, dict) and all(isinstance(meta.get(key), str) for key in ("name", "uid"))


def as_pod(found: dict[str, Any]) -> dict[str, Any]:
    """A pod that has at least what every pod has. Raises EngineUnavailable."""
    if not is_whole(found):
        raise EngineUnavailable("The Kubernetes API sent a pod that has no name or no uid. Call again.")
    for part in ("status", "spec"):
        if not isinstance(found.get(part), dict):
            found[part] = {}
    if not isinstance(found["spec"].get("containers"), list):
        found["spec"]["containers"] = []
    return found


def has_started(found: dict[str, Any], cell: str) -> bool:
    """Whether one of its containers runs. Raises ImageMissing, EngineError when it never will."""
    name, status = found["metadata"]["name"], found.get("status", {})
    one = _status_of(found, cell)
    waiting = one.get("state", {}).get("waiting") or {}
    if waiting.get("reason") in _HOPELESS:
        kind = ImageMissing if waiting["reason"] in _NO_IMAGE else EngineError
        more = _NEVER_PULLED if waiting["reason"] == "ErrImageNeverPull" else ""
        raise kind(f"The pod {name} cannot start: {waiting['reason']}: {waiting.get('message', '')}{more}")
    if status.get("phase") in _ENDED or found["metadata"].get("deletionTimestamp"):
        raise EngineError(f"The pod {name} ended at its start. {why_ended(found, cell)}")
    return "running" in one.get("state", {})


def runs(found: dict[str, Any]) -> bool:
    """Whether a pod has not ended, and is not about to."""
    return found["status"].get("phase") not in _ENDED and not found["metadata"].get("deletionTimestamp")


def standing_of_cell(found: dict[str, Any], cell: str, restarts: int) -> Standing:
    """How a container stands, which has another number of restarts once it has ended."""
    one = _status_of(found, cell)
    is_same = runs(found) and one.get("restartCount", 0) == restarts and "terminated" not in one.get("state", {})
    return Standing.RUNS if is_same else Standing.ENDED


def ended_in(found: dict[str, Any]) -> Iterator[str]:
    """The ids of a pod's containers that have ended: those that were restarted, and all of one that is about to."""
    for one in found["status"].get("containerStatuses", ()):
        restarts, over = one.get("restartCount", 0), "terminated" in one.get("state", {}) or not runs(found)
        for number in range(restarts + over):
            yield f"{volume_of(found)}/{one['name']}/{number}"


def all_in(found: dict[str, Any]) -> Iterator[str]:
    """The ids of all containers that a pod has had."""
    return ended_in(found | {"status": {**found["status"], "phase": "Failed"}})


def why_ended(found: dict[str, Any], cell: str) -> str:
    status = found["status"]
    if status.get("reason"):  # evicted, or over its deadline
        return f"{status['reason']}: {status.get('message', '')}"
    one = _status_of(found, cell)
    for state in (one.get("state", {}), one.get("lastState", {})):
        ended = state.get("terminated")
        if ended and ended.get("reason") == "OOMKilled":
            return "It ran out of memory."
        if ended:
            return f"Its container ended with code {ended.get('exitCode')} ({ended.get('reason', '')})."
    return f"Its pod is {str(status.get('phase', 'unknown')).lower()}."


def image_of(found: dict[str, Any], cell: str) -> str:
    """The id of the image that a container was made from, as the node has it; empty while that is not known."""
    return str(_status_of(found, cell).get("imageID", ""))


def id_of(found: dict[str, Any], cell: str) -> str:
    """Pod, its uid, container, and how often that was restarted: what runs in it now, and nothing else."""
    return f"{volume_of(found)}/{cell}/{_status_of(found, cell).get('restartCount', 0)}"


def volume_of(found: dict[str, Any]) -> str:
    """The files of a pod, which its containers share."""
    return f"{found['metadata']['name']}/{found['metadata']['uid']}"


def files_of(found: dict[str, Any]) -> str:
    """The workspace that a pod has mounted: its own in memory, or one on disk."""
    return str(annotations_of(found).get(pod.TASK_FILES) or volume_of(found))


def is_on_disk(found: dict[str, Any]) -> bool:
    """Whether the files of a pod outlive it."""
    return pod.TASK_FILES in annotations_of(found)


def why_waits(found: dict[str, Any]) -> str:
    """What the scheduler says about a pod that it has found no node for; empty where it says nothing."""
    said = (one for one in found.get("status", {}).get("conditions", ()) if one["type"] == "PodScheduled")
    return next((str(one.get("message", "")) for one in said if one["status"] == "False"), "")


def annotations_of(found: dict[str, Any]) -> dict[str, str]:
    """A pod's annotations; somebody may have taken them away."""
    return found["metadata"].get("annotations") or {}


def labels_of(found: dict[str, Any]) -> dict[str, str]:
    """A pod's labels; somebody may have taken them away."""
    return found["metadata"].get("labels") or {}


def is_sandbox(found: dict[str, Any]) -> bool:
    """Whether a pod was made for a sandbox, and does not only have the labels of one."""
    return pod.CELLS in annotations_of(found)


def own_cells(found: dict[str, Any]) -> list[str]:
    """The containers that a pod was asked for: admission webhooks may add others, in any place."""
    every = found["spec"]["containers"]
    own = [one for one in every if (one.get("command") or [""])[0] == pod.SUPERVISOR]
    return [one["name"] for one in own or every]


def held_up_by(found: dict[str, Any]) -> str:
    """Containers that admission webhooks have added and that are not in order; empty where there is none."""
    status, own = found.get("status", {}), own_cells(found) if found else []
    every = [*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())]
    states = [(one["name"], one.get("state", {})) for one in every if one["name"] not in own and not one.get("ready")]
    return ", ".join(
        f"{name} ({next((str(why['reason']) for why in state.values() if why.get('reason')), 'not ready')})"
        for name, state in states
    )


def is_walled(found: dict[str, Any]) -> bool:
    """Whether a sandbox's pod is promised to have no network."""
    return is_sandbox(found) and pod.OPEN_NETWORK not in annotations_of(found)


def cells_in_use(found: dict[str, Any]) -> list[str]:
    return [cell for cell in annotations_of(found).get(pod.CELLS, "").split(",") if cell]


def is_free(found: dict[str, Any], cell: str) -> bool:
    """Whether a container is not in use, and may be taken."""
    return is_free_among(cells_in_use(found), cell)


def is_free_among(used: Collection[str], cell: str) -> bool:
    """Whether a container may be taken, from those that are in use."""
    return not {cell, cell + pod.SPOILT, pod.CLOSING}.intersection(used)


def has_cell(found: dict[str, Any], cell: str) -> bool:
    """Whether a pod has a container that runs, or is to run (again)."""
    ended = _status_of(found, cell).get("state", {}).get("terminated", {})
    return any(one["name"] == cell for one in found["spec"]["containers"]) and ended.get("exitCode") != 0


def owner_of(found: dict[str, Any]) -> str:
    """The server that has a pod, as its label says."""
    return str(labels_of(found).get(pod.LABEL_PREFIX + "instance", ""))


def is_assigned(found: dict[str, Any]) -> bool:
    """Whether a pod that was made for no task has one."""
    return bool(annotations_of(found).get(pod.LABEL_PREFIX + "name"))


def name_of(found: dict[str, Any]) -> str:
    meta = found["metadata"]
    return str(annotations_of(found).get(pod.LABEL_PREFIX + "name") or meta["name"])


def listed(found: dict[str, Any]) -> Iterator[ListedContainer]:
    """The containers of a pod that are in use, or were; the pod itself where none is."""
    if not is_sandbox(found):
        return
    meta = found["metadata"]
    own = {key.removeprefix(pod.LABEL_PREFIX): value
           for key, value in labels_of(found).items() if key.startswith(pod.LABEL_PREFIX)}  # fmt: skip
    in_use = [cell for cell in cells_in_use(found) if not cell.endswith(pod.SPOILT)]
    for cell in in_use or own_cells(found)[:1]:
        yield ListedContainer(
            id=id_of(found, cell),
            name=name_of(found),
            labels={f"taskcell.{key}": value for key, value in own.items()},
            state="removing" if meta.get("deletionTimestamp") else str(found["status"].get("phase", "unknown")).lower(),
            age=max(0.0, time.time() - _seconds(meta["creationTimestamp"])),
        )


def _status_of(found: dict[str, Any], cell: str) -> dict[str, Any]:
    every = found.get("status", {}).get("containerStatuses", ())
    return next((one for one in every if one["name"] == cell), {})
