"""Makes and lists named volumes, such as caches, which all tasks of one principal share. Everything here blocks."""

from __future__ import annotations

from collections.abc import Sequence

from docker import APIClient
from docker.errors import NotFound

from taskcell.engine.base import ContainerSpec, ListedVolume
from taskcell.engine.docker.memory_volume import SHARED_GROUP
from taskcell.engine.docker.traits import Traits
from taskcell.engine.docker.volume_names import shared_name, volume_name
from taskcell.engine.docker.workspaces import give_to_user, make_on_disk
from taskcell.model import LOCAL_PRINCIPAL

_DEPLOYMENT, _KIND, _NAME = "taskcell.deployment", "taskcell.kind", "taskcell.volume"
_SHARED = "shared"


def prepare(client: APIClient, spec: ContainerSpec, user: tuple[int, int], traits: Traits) -> None:
    """Make those of a profile's volumes that are not there, for its user. Raises APIError.

    What bounds the profile's root file system bounds each of them too, where the engine's storage has quotas.
    """
    owner = user[0], SHARED_GROUP if spec.shares_files else user[1]
    for volume in dict.fromkeys(mount.volume for mount in spec.profile.mounts if mount.volume):
        name = volume_name(spec, volume)
        try:
            client.inspect_volume(name)
        except NotFound:
            labels = {key: value for key, value in spec.labels.items() if key != "taskcell.instance"}
            shared = {**labels, _KIND: _SHARED, _NAME: volume}
            make_on_disk(client, name, shared, traits, owner=owner, size=spec.profile.disk)
            give_to_user(client, spec, name, owner)


def listed(client: APIClient, deployment: str) -> Sequence[ListedVolume]:
    """The deployment's volumes, by name. Raises APIError."""
    found = []
    for volume in client.df()["Volumes"] or ():
        labels = volume.get("Labels") or {}
        if labels.get(_KIND) != _SHARED or labels.get(_DEPLOYMENT) != deployment:
            continue
        name, id, usage = str(labels.get(_NAME, "")), str(volume["Name"]), volume.get("UsageData") or {}
        is_local = id == shared_name(deployment, LOCAL_PRINCIPAL, name)
        found.append(ListedVolume(id, name, is_local, _known(usage.get("Size")), _known(usage.get("RefCount"))))
    return sorted(found, key=lambda one: (one.name, one.id))


def _known(number: object) -> int | None:
    """The engine says -1 where it does not know."""
    return number if isinstance(number, int) and number >= 0 else None
