"""Creates, finds, stops and removes one container. Everything here blocks."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from docker import APIClient
from docker.errors import APIError, NotFound

from taskcell.engine.base import Container, ContainerSpec
from taskcell.engine.docker import image_volumes, owned, shared_volumes, tcp_memory, workspaces
from taskcell.engine.docker.classify import is_gone, is_paused
from taskcell.engine.docker.connection import Connection
from taskcell.engine.docker.hardening import GROUP_OPTION, REPORTS, SUPERVISOR, Place, container_config
from taskcell.engine.docker.mounted import check_mounted
from taskcell.engine.docker.read_back import not_as_asked
from taskcell.engine.docker.seccomp import filter_option
from taskcell.engine.docker.traits import FilterUse
from taskcell.engine.docker.workspaces import REMOVAL_POLL, REMOVAL_TIMEOUT
from taskcell.errors import Denied, EngineError
from taskcell.model import WORKSPACE, Profile
from taskcell.policy.policy import AuthorizedProfile, HostMount
from taskcell.refusal import Rule

#: Seconds from SIGTERM to the engine's SIGKILL: the supervisor's grace of 2 s, its kill, and a busy machine.
STOP_TIMEOUT = 6
_FAR = (
    "The engine at {url} is not on this machine, so no folder of this machine can be mounted; remove it from volumes, "
    "from workspace.root or from workspace.folder."
)


def create_and_start(
    on: Connection, spec: ContainerSpec, image: Mapping[str, Any], runtime: str, abandoned: threading.Event
) -> Container:
    """Create and start a container, and check that it is what was asked for. After a failure nothing is left of it.

    Arguments:
        runtime: of the engine, for a profile that names none.
        abandoned: set when the caller has gone; what was made is removed then.

    Raises:
        APIError, EngineError: the engine failed, or made another container than was asked for.
        Denied: a host folder was exchanged since the policy looked at it.
    """
    with spec.profile.host_mounts(on.endpoint.socket) as mounts:
        return _create_with(on, spec, mounts, image=image, runtime=runtime, abandoned=abandoned)


def _create_with(
    on: Connection,
    spec: ContainerSpec,
    mounts: Sequence[HostMount],
    *,
    image: Mapping[str, Any],
    runtime: str,
    abandoned: threading.Event,
) -> Container:
    profile = spec.profile
    image_volumes.check(image, profile.image)
    if (mounts or spec.workspace.folder) and not (on.endpoint.socket or profile.is_mounted_unseen):
        raise Denied(Rule.MOUNTS.value, _FAR.format(url=on.endpoint.shown))
    in_memory = not (spec.workspace.persistent or spec.workspace.folder or profile.folder)
    user = on.users.numbers_of(profile, image)
    place = workspaces.find_place(on.client, spec, user, on.traits)
    shared_volumes.prepare(on.client, spec, user, on.traits)
    container_id = _create(on, spec, mounts, place, image=image, runtime=profile.runtime or runtime)
    try:
        _go_on(abandoned)
        inspected = _start(on, container_id, profile, mounts)
        owned.give(on.client, container_id, profile)
        _go_on(abandoned)
        lost = in_memory and not place.is_fresh and not workspaces.was_held(on.client, spec.workspace.holders)
    except BaseException:
        remove(on.client, container_id)
        if in_memory and place.is_fresh and place.volume:
            with suppress(APIError):
                on.client.remove_volume(place.volume)
        raise
    found = container_of(inspected, profile, image)
    folder = next((mount.path.identity for mount in mounts if mount.target == WORKSPACE), None)
    is_filtered = on.traits.filter_use is not FilterUse.NONE
    fresh = place.is_fresh or lost
    return replace(found, is_fresh=fresh, is_owner=place.is_owned, folder=folder, is_filtered=is_filtered)


def _create(
    on: Connection,
    spec: ContainerSpec,
    mounts: Sequence[HostMount],
    place: Place,
    *,
    image: Mapping[str, Any],
    runtime: str,
) -> str:
    """The id of the new container, which does not run yet."""
    volume = on.supervisors.ensure(image)
    with filter_option(on.traits.filter_use) as seccomp:
        config = container_config(
            on.client,
            spec,
            mounts,
            volume=volume,
            place=place,
            image=image,
            runtime=runtime,
            seccomp=seccomp,
            maps_users=on.traits.maps_users,
        )
        made = on.client.create_container_from_config(config, spec.name, spec.profile.platform or None)
    return str(made["Id"])


def _start(
    on: Connection, container_id: str, profile: AuthorizedProfile, mounts: Sequence[HostMount]
) -> Mapping[str, Any]:
    """Start it and check it, before anything but the supervisor runs in it; the engine's inspection of it."""
    on.client.start(container_id)
    inspected: Mapping[str, Any] = on.client.inspect_container(container_id)
    has_filter = on.traits.filter_use is not FilterUse.NONE
    wrong = not_as_asked(profile, mounts, inspected, has_filter=has_filter)
    if wrong:
        raise EngineError(f"The engine silently dropped {', '.join(wrong)}; it cannot hold a sandbox safely.")
    pid = int(inspected["State"]["Pid"])
    if not profile.is_mounted_unseen:
        folder = None if profile.is_reader else profile.folder
        check_mounted(on.client, container_id, mounts, folder, same_kernel=on.traits.same_kernel)
    if not on.traits.counts_sockets:
        tcp_memory.bound(container_id, pid, profile.memory)
    return inspected


def _go_on(abandoned: threading.Event) -> None:
    if abandoned.is_set():
        raise EngineError("The sandbox is not needed any longer.")


def container_of(inspected: Mapping[str, Any], profile: Profile, image: Mapping[str, Any]) -> Container:
    """The container that the engine's inspections of it and of its image describe."""
    own = image["Config"]
    mounted = {mount["Destination"]: mount for mount in inspected.get("Mounts") or ()}.get(WORKSPACE, {})
    return Container(
        id=str(inspected["Id"]),
        name=str(inspected["Name"]).removeprefix("/"),
        workspace=WORKSPACE,
        supervisor=SUPERVISOR,
        reports=REPORTS,
        user=profile.user,
        environment=dict(entry.partition("=")[::2] for entry in own.get("Env") or ()),
        entrypoint=tuple(own.get("Entrypoint") or ()),
        command=tuple(own.get("Cmd") or ()),
        working_dir=own.get("WorkingDir") or "",
        image_id=str(image["Id"]),
        volume=str(mounted.get("Name") or mounted.get("Source") or ""),
        runtime=str(inspected["HostConfig"].get("Runtime") or ""),
        shares_files=GROUP_OPTION in (inspected["Config"].get("Cmd") or ()),
        transfers_apart=True,
    )


def find(client: APIClient, container_id: str, profile: Profile) -> Container | None:
    """A container that runs already; None when it does not run. Raises APIError."""
    try:
        inspected = client.inspect_container(container_id)
        if not inspected["State"].get("Running"):
            return None
        return replace(container_of(inspected, profile, client.inspect_image(inspected["Image"])), is_fresh=False)
    except NotFound:
        return None


def stop(client: APIClient, container_id: str) -> None:
    """Have the supervisor kill everything and end, then remove the container. Raises APIError."""
    try:
        client.stop(container_id, timeout=STOP_TIMEOUT)
    except APIError as error:
        if not (is_gone(error) or is_paused(error)):
            raise
    remove(client, container_id)


def remove(client: APIClient, container_id: str) -> None:
    """Kill and remove; if the engine is removing it already, wait until it is gone. Raises APIError.

    An engine whose own removal has failed does not try again; this repeats the request until the container is gone.
    """
    deadline = time.monotonic() + REMOVAL_TIMEOUT
    while True:
        try:
            client.remove_container(container_id, force=True, v=True)
        except NotFound:
            return
        except APIError as error:
            is_late = time.monotonic() > deadline
            if is_paused(error) and not is_late:
                client.unpause(container_id)
            elif not is_gone(error):
                raise
            elif is_late:
                return
        else:
            return
        time.sleep(REMOVAL_POLL)
