"""Pods and their servers: a label says whose a pod is, and an annotation for each of its containers what is in it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any, NamedTuple

import structlog

from taskcell.deployment.checked import record
from taskcell.deployment.cluster.objects import INSTANCE, Objects, at_annotation, at_label, set_to, test
from taskcell.deployment.records import NoteRecord, SandboxRecord
from taskcell.engine.kubernetes.pod import LABEL_PREFIX, POD_GRACE
from taskcell.engine.kubernetes.status import owner_of

log = structlog.get_logger(__name__)

#: What the key of a container's annotation begins with; the container's name follows.
RECORD = LABEL_PREFIX + "record."
#: Characters of one annotation. All of an object's may have 256 kB.
_MAX_RECORD = 64 << 10


class PodPlace(NamedTuple):
    """Where a sandbox is, by the engine's id of it (`engine/kubernetes/status.py`)."""

    pod: str
    uid: str
    cell: str

    @classmethod
    def of(cls, container: str) -> PodPlace:
        return cls(*container.split("/")[:3])


class OwnedPods:
    """Writes to pods of one server only while they are its own: each change tests the label. Every method raises
    EngineUnavailable, EngineError.

    Arguments:
        instance: the server's name.
    """

    def __init__(self, objects: Objects, instance: str) -> None:
        self._objects = objects
        self._instance = instance

    async def take(self, pod: Mapping[str, Any], dead: str) -> bool:
        """Make a dead server's pod this one's; False where another server was faster."""
        steps = [
            test("/metadata/uid", pod["metadata"]["uid"]),
            test(at_label(INSTANCE), dead),
            set_to(at_label(INSTANCE), self._instance),
        ]
        return await self._objects.change("pods", pod["metadata"]["name"], steps) is not None

    async def write(self, written: SandboxRecord) -> bool:
        """Write what is in a container; False where its pod is gone, or another server's."""
        place = PodPlace.of(written.container)
        text = json.dumps(asdict(written))
        return await self._change(place, set_to(at_annotation(RECORD + place.cell), text))

    async def erase(self, container: str) -> bool:
        """Nothing is in a container any more; False as in `write`."""
        place = PodPlace.of(container)
        return await self._change(place, set_to(at_annotation(RECORD + place.cell), ""))

    async def _change(self, place: PodPlace, step: Mapping[str, Any]) -> bool:
        steps = [test("/metadata/uid", place.uid), test(at_label(INSTANCE), self._instance), step]
        return await self._objects.change("pods", place.pod, steps) is not None

    async def delete_unused(self, pod: Mapping[str, Any], dead: str) -> None:
        """Remove a dead server's pod that no task has, if that is so still: it may have been seen some time ago."""
        now = await self._objects.found("pods", pod["metadata"]["name"])
        if now is not None and owner_of(now) == dead and not any(one.task for one in records_of(now)):
            await self._objects.delete("pods", now, grace=POD_GRACE)


def records_of(pod: Mapping[str, Any]) -> tuple[SandboxRecord, ...]:
    """What is in a pod's containers. What no server can have written costs a line in the log."""
    meta = pod["metadata"]
    found = []
    for key, text in meta.get("annotations", {}).items():
        if not key.startswith(RECORD) or not text:
            continue
        try:
            one = record(SandboxRecord, json.loads(text[:_MAX_RECORD]))
            if PodPlace.of(one.container) != (meta["name"], meta["uid"], key.removeprefix(RECORD)):
                raise ValueError
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            log.warning("A pod's annotation is not used: it is not what a server writes.", pod=meta["name"], key=key)
        else:
            found.append(one)
    return tuple(found)


def notes_in(text: str, server: str) -> tuple[NoteRecord, ...]:
    """What a server has written down that no answer had said. What no server can have written costs a line."""
    try:
        return tuple(record(NoteRecord, table) for table in json.loads(text or "[]"))
    except (ValueError, TypeError, AttributeError, RecursionError):
        log.warning("What a server has written down is not used: no server writes such.", server=server)
        return ()


def essence(written: SandboxRecord) -> SandboxRecord:
    """What another server must know at once. How busy a sandbox is may be some seconds old."""
    return replace(written, idle_since=0.0, processes=0, commands=0)
