"""Makes named volumes, such as caches, which all tasks of one principal share. Everything here blocks."""

from __future__ import annotations

from docker import APIClient
from docker.errors import NotFound

from taskcell.engine.base import ContainerSpec
from taskcell.engine.docker.memory_volume import SHARED_GROUP
from taskcell.engine.docker.volume_names import volume_name
from taskcell.engine.docker.workspaces import give_to_user


def prepare(client: APIClient, spec: ContainerSpec, user: tuple[int, int]) -> None:
    """Make those of a profile's volumes that are not there, for its user. Raises APIError."""
    owner = user[0], SHARED_GROUP if spec.shares_files else user[1]
    for volume in dict.fromkeys(mount.volume for mount in spec.profile.mounts if mount.volume):
        name = volume_name(spec, volume)
        try:
            client.inspect_volume(name)
        except NotFound:
            labels = {key: value for key, value in spec.labels.items() if key != "taskcell.instance"}
            shared = {**labels, "taskcell.kind": "shared", "taskcell.volume": volume}
            client.create_volume(name, driver="local", labels=shared)
            give_to_user(client, spec, name, owner)
