"""What named volumes are called on the engine, and how they are mounted."""

from __future__ import annotations

import hashlib

from docker.types import Mount

from taskcell.engine.base import ContainerSpec


def mounts_of(spec: ContainerSpec) -> list[Mount]:
    """What is to be mounted of named volumes."""
    return [
        Mount(mount.target, volume_name(spec, mount.volume), type="volume", read_only=mount.read_only, no_copy=True)
        for mount in spec.profile.mounts
        if mount.volume
    ]


def volume_name(spec: ContainerSpec, volume: str) -> str:
    """The engine's name of a volume for a container's principal."""
    return shared_name(spec.labels.get("taskcell.deployment", ""), spec.principal, volume)


def shared_name(deployment: str, principal: str, volume: str) -> str:
    """The engine's name of a volume: another one for each deployment and principal, whose name is not in it."""
    digest = hashlib.sha256(f"{deployment}\0{principal}\0{volume}".encode("utf-8", "surrogatepass")).hexdigest()
    return f"taskcell-shared-{digest[:24]}"
