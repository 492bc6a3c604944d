"""What the API says about a pod, in taskcell's words. Pure."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Any

from taskcell.engine.base import ListedContainer, Standing
from taskcell.engine.kubernetes import pod
from taskcell.errors import EngineError, ImageMissing

#: Why a container cannot start, so that waiting is of no use, in Kubernetes' words.
_NO_IMAGE = frozenset({"ErrImageNeverPull", "InvalidImageName", "ImagePullBackOff", "ErrImagePull"})
_HOPELESS = _NO_IMAGE | {"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}
_ENDED = frozenset({"Succeeded", "Failed"})


def _seconds(time_of: str) -> float:
    return datetime.fromisoformat(time_of.replace("Z", "+00:00")).timestamp()


def has_started(found: dict[str, Any]) -> bool:
    """Whether its container runs. Raises ImageMissing, EngineError when it never will."""
    name, status = found["metadata"]["name"], found.get("status", {})
    for one in status.get("containerStatuses", ()):
        waiting = one.get("state", {}).get("waiting") or {}
        if waiting.get("reason") in _HOPELESS:
            kind = ImageMissing if waiting["reason"] in _NO_IMAGE else EngineError
            raise kind(f"The pod {name} cannot start: {waiting['reason']}: {waiting.get('message', '')}")
    if status.get("phase") in _ENDED or found["metadata"].get("deletionTimestamp"):
        raise EngineError(f"The pod {name} ended at its start. {why_ended(status)}")
    return bool(status.get("phase") == "Running")


def standing_of_pod(found: dict[str, Any]) -> Standing:
    is_over = found["status"].get("phase") in _ENDED or found["metadata"].get("deletionTimestamp")
    return Standing.ENDED if is_over else Standing.RUNS


def why_ended(status: dict[str, Any]) -> str:
    if status.get("reason"):  # evicted, or over its deadline
        return f"{status['reason']}: {status.get('message', '')}"
    for one in status.get("containerStatuses", ()):
        for state in (one.get("state", {}), one.get("lastState", {})):
            ended = state.get("terminated")
            if ended and ended.get("reason") == "OOMKilled":
                return "It ran out of memory."
            if ended:
                return f"Its container ended with code {ended.get('exitCode')} ({ended.get('reason', '')})."
    return f"Its pod is {str(status.get('phase', 'unknown')).lower()}."


def image_of(found: dict[str, Any]) -> str:
    """The id of the image that its container was made from, as the node has it; empty while that is not known."""
    return next((str(one.get("imageID", "")) for one in found["status"].get("containerStatuses", ())), "")


def id_of(found: dict[str, Any]) -> str:
    return f"{found['metadata']['name']}/{found['metadata']['uid']}"


def name_of(found: dict[str, Any]) -> str:
    meta = found["metadata"]
    return str(meta["annotations"].get(pod.LABEL_PREFIX + "name") or meta["name"])


def listed(found: dict[str, Any]) -> ListedContainer:
    """A pod as a container of its deployment."""
    meta = found["metadata"]
    own = {key.removeprefix(pod.LABEL_PREFIX): value
           for key, value in meta["labels"].items() if key.startswith(pod.LABEL_PREFIX)}  # fmt: skip
    return ListedContainer(
        id=id_of(found),
        name=name_of(found),
        labels={f"taskcell.{key}": value for key, value in own.items()},
        state="removing" if meta.get("deletionTimestamp") else found["status"]["phase"].lower(),
        age=max(0.0, time.time() - _seconds(meta["creationTimestamp"])),
    )
