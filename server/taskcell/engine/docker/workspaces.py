"""Where a container's workspace comes from: memory, a volume on disk, or a folder of the host. Everything here blocks.

In memory it is an anonymous volume, which the engine removes with the last container that owns it: so nothing is left
when the sandboxes of a killed server have removed themselves. A second container owns the volume too when it takes the
volumes of the first (docker's `--volumes-from`); it may do so only if it mounts everything that the first one mounts.
"""

from __future__ import annotations

import io
import os
import secrets
import stat
import tarfile
import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from docker import APIClient
from docker.errors import APIError, NotFound
from docker.types import Mount

from taskcell.engine.base import ContainerSpec, Holder
from taskcell.engine.docker.classify import is_in_use, is_unlimited
from taskcell.engine.docker.hardening import Place, mode_of
from taskcell.engine.docker.memory_volume import SHARED_GROUP, workspace_options
from taskcell.engine.docker.traits import Traits
from taskcell.errors import EngineError
from taskcell.model import WORKSPACE

#: Seconds to wait for the end of a container, or of a volume's last user, that is being removed, and between two looks.
REMOVAL_TIMEOUT = 10.0
REMOVAL_POLL = 0.05
#: Where the container that gives a volume on disk to its user has it; it is never started.
_CARRIER_FOLDER = "/mnt"
#: New files inherit the folder's group.
_MODE = 0o2775
_KIND = "taskcell.kind"


def find_place(client: APIClient, spec: ContainerSpec, user: tuple[int, int], traits: Traits) -> Place:
    """Where a new container gets its workspace from; a folder or a volume on disk is made now.

    Raises APIError, EngineError.

    Arguments:
        user: uid and gid of whom commands run as, in the container.
        traits: of the engine.
    """
    workspace, profile = spec.workspace, spec.profile
    in_memory = user if traits.mounts_by_options else None
    owner = user[0], SHARED_GROUP if spec.shares_files else user[1]
    if profile.folder is not None:
        return Place(profile.folder.path, is_fresh=False, user=in_memory)
    if workspace.folder:
        return Place(workspace.folder, is_fresh=prepare_folder(Path(workspace.folder), owner), user=in_memory)
    if workspace.persistent:
        return Place(workspace.name, is_fresh=_prepare_volume(client, spec, owner, traits), user=in_memory)
    outside = traits.user_base[0] + owner[0], traits.user_base[1] + owner[1]
    targets = {mount.target for mount in profile.mounts}
    holder = next((holder for holder in workspace.holders if runs(client, holder.id)), None)
    if holder is not None:
        shares = holder.targets <= targets and not holder.is_reader
        return Place(workspace.name, holder.id if shares else "", is_fresh=False, owner=outside, user=in_memory)
    in_one_place = not profile.is_reader and not any(mount.is_workspace for mount in profile.mounts)
    if in_one_place and traits.mounts_by_options:
        return Place(owner=outside, user=in_memory)
    # Only a name can say that a volume in a second place is the same, and the engine mounts none without one read-only.
    name = f"taskcell-ws-{secrets.token_hex(12)}"
    options = workspace_options(workspace.size, outside, mode_of(spec), in_pages=not traits.mounts_by_options)
    client.create_volume(name, driver="local", driver_opts=options, labels=_labels(spec, "workspace"))
    return Place(name, owner=outside, user=in_memory)


def was_held(client: APIClient, holders: Collection[Holder]) -> bool:
    """Whether one of the containers still runs: then it has kept the files in memory all the time."""
    return any(runs(client, holder.id) for holder in holders)


def runs(client: APIClient, container_id: str) -> bool:
    """Whether a container has processes, even paused ones. Raises APIError."""
    try:
        return bool(client.inspect_container(container_id)["State"].get("Running"))
    except NotFound:
        return False


def remove(client: APIClient, name: str) -> None:
    """Remove a volume; its last container may be on its way out. Raises APIError."""
    deadline = time.monotonic() + REMOVAL_TIMEOUT
    while True:
        try:
            client.remove_volume(name)
        except NotFound:
            return
        except APIError as error:
            if not is_in_use(error) or time.monotonic() > deadline:
                raise
            time.sleep(REMOVAL_POLL)
        else:
            return


def sweep(client: APIClient, deployment: str, living: Collection[str]) -> None:
    """Remove the workspaces that killed servers of the same deployment left.

    A workspace in memory that nothing mounts has lost its files; the engine refuses to remove one that is in use.

    Arguments:
        living: instances that still run; theirs are left alone.
    """
    own = {"label": [f"taskcell.deployment={deployment}", f"{_KIND}=workspace"]}
    for volume in client.volumes(filters=own)["Volumes"] or ():
        if (volume.get("Labels") or {}).get("taskcell.instance") not in living:
            with suppress(APIError):
                client.remove_volume(volume["Name"])


def sweep_own(client: APIClient, instance: str) -> None:
    """Remove one server's own workspaces: a restarted engine has removed the containers and left their volumes."""
    own = {"label": [f"taskcell.instance={instance}", f"{_KIND}=workspace"], "dangling": True}
    for volume in client.volumes(filters=own)["Volumes"] or ():
        with suppress(APIError):
            client.remove_volume(volume["Name"])


# --- the files themselves ---------------------------------------------------------------------------------------------


def save(client: APIClient, container_id: str, file: BinaryIO, most: int, folder: str = WORKSPACE) -> None:
    """Write a folder of a running container, its workspace, as a tar archive. Raises APIError, EngineError.

    Arguments:
        most: bytes; an archive has a sparse file's holes too, which could be without an end.
    """
    chunks, _ = client.get_archive(container_id, f"{folder}/.")
    try:
        for chunk in chunks:
            most -= len(chunk)
            if most < 0:
                raise EngineError("The task's files take too much room as an archive; files with holes count in full.")
            try:
                file.write(chunk)
            except OSError as error:
                raise EngineError(f"The server cannot write the task's files to its disk: {error.strerror}.") from error
    finally:
        chunks.close()


# --- on disk ---------------------------------------------------------------------------------------------------------


def prepare_folder(folder: Path, owner: tuple[int, int]) -> bool:
    """Make a task's folder on the host, and check that it is a folder. Returns whether it is new.

    The server's own user, or root, must own the folder above it. A server that runs as root gives the task's folder to
    the sandbox's user. Raises EngineError.

    Arguments:
        owner: uid and gid of that user.
    """
    try:
        root = folder.parent
        root.mkdir(mode=0o755, parents=True, exist_ok=True)
        _check_owned(root)
        if root.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise EngineError(f"The folder {root} can be written by others; make it yours alone (chmod go-w).")
        is_new = not folder.exists()
        folder.mkdir(mode=0o755, exist_ok=True)
        if folder.is_symlink() or not folder.is_dir():
            raise EngineError(f"{folder} is not a folder; remove it, for the task's files are to be there.")
        if os.getuid() == 0 and folder.stat().st_uid == 0:
            os.chown(folder, *owner)
            folder.chmod(_MODE)
    except OSError as error:
        raise EngineError(
            f"The workspace's folder {folder} cannot be made: {error.strerror}; correct workspace.root."
        ) from error
    return is_new


def _check_owned(root: Path) -> None:
    if root.stat().st_uid not in (0, os.getuid()):
        raise EngineError(f"The folder {root} belongs to another user; name one of your own as workspace.root.")


def _prepare_volume(client: APIClient, spec: ContainerSpec, owner: tuple[int, int], traits: Traits) -> bool:
    """Make the sandbox user's volume, bounded if the engine's storage has quotas. Returns whether it is new."""
    name = spec.workspace.name
    try:
        client.inspect_volume(name)
    except NotFound:
        make_on_disk(client, name, _labels(spec, "data"), traits, owner=owner, size=spec.workspace.size)
        give_to_user(client, spec, name, owner)
        return True
    return False


def make_on_disk(
    client: APIClient,
    name: str,
    labels: dict[str, str],
    traits: Traits,
    *,
    owner: tuple[int, int] | None = None,
    size: int | None = None,
) -> bool:
    """Make a volume on disk; returns whether its size is bounded. Raises APIError.

    Arguments:
        owner: uid and gid, for an engine that takes them here; `give_to_user` is for the others.
        size: bytes, where the engine's storage has quotas; None: no bound is asked for.
    """
    if not traits.mounts_by_options:
        # It takes a size here too, and fails where it mounts the volume. Without an owner here, the volume belongs from
        # its first mount on to the owner of the image's folder.
        options = {"o": f"uid={owner[0]},gid={owner[1]}"} if owner is not None else {}
        client.create_volume(name, driver="local", driver_opts=options, labels=labels)
        return False
    if size is not None:
        try:
            client.create_volume(name, driver="local", driver_opts={"size": str(size)}, labels=labels)
        except APIError as error:
            if not is_unlimited(error):
                raise
        else:
            return True
    client.create_volume(name, driver="local", labels=labels)
    return False


def give_to_user(client: APIClient, spec: ContainerSpec, name: str, owner: tuple[int, int]) -> None:
    """Make the sandbox's user the owner of a new volume, which is root's: unpacking an archive into it does that."""
    mount = Mount(f"{_CARRIER_FOLDER}/data", name, type="volume", no_copy=True)
    host: dict[str, Any] = client.create_host_config(mounts=[mount], network_mode="none")
    config = client.create_container_config(
        spec.profile.image, ["-"], entrypoint=["-"], labels={_KIND: "carrier"}, host_config=host
    )
    carrier = client.create_container_from_config(config, f"taskcell-carrier-{secrets.token_hex(8)}")["Id"]
    try:
        client.put_archive(carrier, _CARRIER_FOLDER, _folder_archive(owner))
    except APIError:
        with suppress(APIError):
            client.remove_container(carrier, force=True, v=True)
            client.remove_volume(name)
        raise
    client.remove_container(carrier, force=True, v=True)


def _folder_archive(owner: tuple[int, int]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        entry = tarfile.TarInfo("data")
        entry.type, entry.mode, (entry.uid, entry.gid) = tarfile.DIRTYPE, _MODE, owner
        archive.addfile(entry)
    return buffer.getvalue()


def _labels(spec: ContainerSpec, kind: str) -> dict[str, str]:
    labels = dict(spec.labels) | {_KIND: kind}
    if kind == "data":  # it outlives the instance that made it
        labels.pop("taskcell.instance", None)
    return labels
