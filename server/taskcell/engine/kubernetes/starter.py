"""Gives a sandbox its container: one of the task's pod that is free, or one of a new pod."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import anyio

from taskcell.engine.base import Container, ContainerSpec, Standing
from taskcell.engine.kubernetes import inside, pod, status
from taskcell.engine.kubernetes.api import Api
from taskcell.engine.kubernetes.disks import Disks, claim_of
from taskcell.engine.kubernetes.inside import PodCell
from taskcell.engine.kubernetes.network import Wall
from taskcell.engine.kubernetes.pods import Pods
from taskcell.errors import EngineError, SandboxLost
from taskcell.model import WORKSPACE
from taskcell.policy.policy import AuthorizedProfile
from taskcell.text import shown

#: Seconds from a pod's creation to its container's start, where the image is on the node: one, and more where many
#: start at once. A pull takes longer, and goes on in the cluster only while the pod is there.
POD_START_TIMEOUT = 60.0
#: Seconds after which a pod that does not start is suspected to lack its supervisor: a kubelet tries again for minutes.
SUSPECT_AFTER = 10.0
#: Seconds to remove a pod that could not be started.
POD_UNDO_TIMEOUT = 5.0

#: Seconds in which a supervisor that was asked to end begins anew: its grace of 2 s, and the kill. Between two looks.
IDLE_WITHIN, IDLE_POLL = 5.0, 0.1
#: Characters of the scheduler's own words in an error.
_SAID = 300


class Starter:
    """Raises EngineError, EngineUnavailable, ImageMissing, NoRoom."""

    def __init__(self, api: Api, pods: Pods, wall: Wall, disks: Disks) -> None:
        self._api = api
        self._disks = disks
        self._pods = pods
        self._wall = wall
        #: Containers that took no stream, for they had ended: what the API says of them may be seconds old.
        self.ended: set[str] = set()
        #: Those of them in whose place another one is in use.
        self.followed: set[str] = set()
        self._environments: dict[str, Mapping[str, str]] = {}
        #: Where the files of a task went when it got a new pod beside its running one.
        self._moved: dict[str, str] = {}

    async def in_pod_of_task(self, spec: ContainerSpec) -> Container | None:
        """A free container of the pod that has the task's files; None where there is none.

        Raises EngineError: the pod was made without one, and others of its containers are in use.
        """
        cell, found = pod.cell_of(spec.profile), await self._pod_with_files(spec)
        if found is None:
            return None
        if not status.has_cell(found, cell):
            if not status.cells_in_use(found):
                return None
            raise EngineError(
                f"The task's pod was made without a container for '{spec.profile.name}', and none can be added: close "
                "the task (`sandbox close`), or use another task_id."
            )
        before = self._ended_in(found, cell, spec)
        if before is not None:
            self.followed.add(before)
        elif not await self._pods.claim(found, cell):
            return None
        try:
            with anyio.fail_after(POD_START_TIMEOUT):
                running = await self._pods.until_running(found["metadata"]["name"], cell, not_id=before or "")
                return await self.described(running, spec.profile, is_fresh=False)
        except BaseException as error:
            with anyio.move_on_after(POD_UNDO_TIMEOUT, shield=True):
                if (now := await self._pods.look(status.volume_of(found))) is not None:  # it says what is in use
                    await self._pods.release(now, cell)
            raise _late(spec.name) if isinstance(error, TimeoutError) else error from None

    async def _pod_with_files(self, spec: ContainerSpec) -> dict[str, Any] | None:
        """The pod in which a container may be free: files in memory are in one, those on disk in any of the task's."""
        if not spec.workspace.persistent:
            return await self._pod_of(spec.workspace.name)
        cell = pod.cell_of(spec.profile)
        found = await self._pods.with_disk(claim_of(spec.workspace.name))
        return next((one for one in found if status.has_cell(one, cell) and status.is_free(one, cell)), None)

    def _ended_in(self, found: dict[str, Any], cell: str, spec: ContainerSpec) -> str | None:
        """The task's last container in this place, if it has ended; the kubelet starts another one there."""
        for holder in spec.workspace.holders:
            volume, _, rest = holder.id.rpartition(f"/{cell}/")
            if volume == status.volume_of(found):
                is_over = status.standing_of_cell(found, cell, int(rest)) is Standing.ENDED
                return holder.id if is_over or holder.id in self.ended else None
        return None

    async def _pod_of(self, volume: str) -> dict[str, Any] | None:
        """The running pod that has a task's files now."""
        found = await self._pods.look(self._moved.get(volume, volume))
        return found if found is not None and status.runs(found) else None

    async def in_new_pod(self, spec: ContainerSpec) -> Container:
        """A container of a new pod, with the files of the pod that the task has, if it has one."""
        on_disk, is_fresh = spec.workspace.persistent, True
        if on_disk:
            is_fresh = await self._disks.ensure(spec)
        made = await self._pods.make(spec, claim_of(spec.workspace.name) if on_disk else "")
        cell, why, others = pod.cell_of(spec.profile), "", ""
        try:
            if "network" not in spec.allow_unenforced:
                self._wall.check_labels(status.labels_of(made))
            with anyio.fail_after(POD_START_TIMEOUT):
                found = await self._until_running(spec, cell)
                if "network" not in spec.allow_unenforced:
                    await self._wall.check(PodCell(spec.name, cell), found["spec"]["nodeName"])
                if not on_disk:
                    is_fresh = not await self._inherit(found, spec)
                return await self.described(found, spec.profile, is_fresh=is_fresh)
        except BaseException as error:
            with anyio.move_on_after(POD_UNDO_TIMEOUT, shield=True):
                if isinstance(error, TimeoutError):
                    looked = await self._pods.look(status.volume_of(made)) or {}
                    why, others = status.why_waits(looked), status.held_up_by(looked)
                await self._pods.delete(spec.name, made["metadata"]["uid"], 0)
            raise _late(spec.name, why, others) if isinstance(error, TimeoutError) else error from None

    async def _until_running(self, spec: ContainerSpec, cell: str) -> dict[str, Any]:
        with anyio.move_on_after(SUSPECT_AFTER):
            return await self._pods.until_running(spec.name, cell)
        await self._pods.have_supervisor(pod.architecture(spec.profile))  # somebody may have deleted it
        return await self._pods.until_running(spec.name, cell)

    async def _inherit(self, found: dict[str, Any], spec: ContainerSpec) -> bool:
        """Fill a new pod with the files of the task's running one; returns whether there was one."""
        old, cell = await self._pod_of(spec.workspace.name) if spec.workspace.name else None, pod.cell_of(spec.profile)
        if old is None:
            return False
        source, target = PodCell(old["metadata"]["name"], cell), PodCell(found["metadata"]["name"], cell)
        await inside.copy(self._api, source, [target], spec.profile.user)
        self._moved[spec.workspace.name] = status.volume_of(found)
        return True

    async def described(self, found: dict[str, Any], profile: AuthorizedProfile, *, is_fresh: bool) -> Container:
        """The container of a profile in a pod."""
        cell = pod.cell_of(profile)
        return Container(
            id=status.id_of(found, cell),
            name=status.name_of(found),
            workspace=WORKSPACE,
            supervisor=pod.SUPERVISOR,
            reports=pod.POD_REPORTS,
            user=profile.user,
            environment=await self._environment(found, cell),
            image_id=profile.image,
            volume=status.files_of(found),
            is_fresh=is_fresh,
            is_owner=False,
            shares_files=found["spec"].get("securityContext", {}).get("fsGroup") == pod.FILES_GROUP,
            is_pod=True,
            is_contended=not status.is_assigned(found),
        )

    async def is_idle(self, at: PodCell) -> bool:
        """Whether a container's supervisor begins anew within IDLE_WITHIN."""
        with anyio.move_on_after(IDLE_WITHIN), suppress(SandboxLost):
            while not await inside.is_idle(self._api, at):  # noqa: ASYNC110 - in another machine's kernel
                await anyio.sleep(IDLE_POLL)
            return True
        return False

    async def _environment(self, found: dict[str, Any], cell: str) -> Mapping[str, str]:
        """The image's own variables: the first container of each image is asked."""
        image = status.image_of(found, cell)
        if image not in self._environments:
            at = PodCell(found["metadata"]["name"], cell)
            self._environments[image] = await inside.environment(self._api, at)
        return self._environments[image]


def place_of(container: Container) -> PodCell:
    name, _, cell, _ = container.id.split("/")
    return PodCell(name, cell)


def _late(name: str, why: str = "", others: str = "") -> EngineError:
    said = "the cluster has no room for it, or pulls its image"
    if why:
        said = f"no node takes it ({shown(why, _SAID)})"
    elif others:
        said = f"the cluster has added containers to it that are not in order ({shown(others, _SAID)})"
    return EngineError(
        f"The pod {name} was not started within {POD_START_TIMEOUT:g} s: {said}. Call again in a minute."
    )
