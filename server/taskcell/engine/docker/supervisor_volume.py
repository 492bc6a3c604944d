"""The engine's volumes that bring the supervisor into every sandbox.

The supervisor comes in a volume because an archive cannot be put into a container whose root file system is read-only,
and a host path cannot be mounted from another machine's engine.
"""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from docker import APIClient
from docker.errors import APIError, NotFound
from docker.types import Mount

from taskcell.engine.docker import living
from taskcell.engine.docker.classify import is_gone, is_in_use
from taskcell.engine.docker.hardening import (
    SUPERVISOR,
    SUPERVISOR_FOLDER,
    SUPERVISOR_LABELS,
)
from taskcell.errors import EngineError
from taskcell.supervisor import binary

#: Seconds that another server may take to fill the volume: one container created, 100 kB sent, and removed. One that
#: runs on this machine and has died is not waited for.
FILL_TIMEOUT = 30.0
FILL_POLL = 0.1
_LABEL = "taskcell.kind=supervisor"
#: Of the container that fills a volume: the process that does.
_FILLER = "taskcell.filler"


class SupervisorVolumes:
    """One volume for each architecture and supervisor, filled once and mounted read-only by every sandbox.

    The container that fills it is never started; its name is the lock between servers.
    """

    def __init__(self, client: APIClient) -> None:
        self._client = client
        self._lock = threading.Lock()
        self._filled: set[str] = set()

    def forget(self) -> None:
        """Look again at the next `ensure`: a volume was removed."""
        with self._lock:
            self._filled.clear()

    def ensure(self, image: Mapping[str, Any]) -> str:
        """The name of the volume with the supervisor for the image's architecture.

        Raises EngineError when there is no supervisor for it.
        """
        program = binary.read(str(image.get("Architecture", "")))
        name = f"taskcell-supervisor-{hashlib.sha256(program).hexdigest()[:16]}"
        with self._lock:
            if name not in self._filled:
                self._fill(name, program, image["Id"])
                self._filled.add(name)
        return name

    def _fill(self, name: str, program: bytes, image_id: str) -> None:
        self._client.create_volume(name, labels=SUPERVISOR_LABELS)
        carrier = self._create_carrier(name, image_id)
        try:
            if not self._holds(carrier, program):
                self._client.put_archive(carrier, SUPERVISOR_FOLDER, _archive(program))
        finally:
            self._client.remove_container(carrier, force=True, v=True)
        self._remove_older(name)

    def _remove_older(self, name: str) -> None:
        """Remove those of other versions that nothing mounts; a server that still needs one fills it again."""
        for volume in self._client.volumes(filters={"label": _LABEL})["Volumes"] or ():
            if volume["Name"] != name:
                with suppress(APIError):
                    self._client.remove_volume(volume["Name"])

    def _create_carrier(self, name: str, image_id: str) -> str:
        mount = Mount(SUPERVISOR_FOLDER, name, type="volume", no_copy=True)
        host = self._client.create_host_config(mounts=[mount], network_mode="none")
        labels = {"taskcell.kind": "supervisor", _FILLER: living.mark_of(os.getpid())}
        config = self._client.create_container_config(
            image_id, ["version"], entrypoint=[SUPERVISOR], labels=labels, host_config=host
        )
        deadline = time.monotonic() + FILL_TIMEOUT
        while True:
            try:
                return str(self._client.create_container_from_config(config, name)["Id"])
            except APIError as error:
                if not is_in_use(error):
                    raise
            other, filler = self._find_other(name)
            if other and (living.is_dead(filler) or time.monotonic() > deadline):
                self._remove_stale(other, name)
                deadline = time.monotonic() + FILL_TIMEOUT
            time.sleep(FILL_POLL)

    def _find_other(self, name: str) -> tuple[str, str]:
        """The id of the container that has the name, and the mark of who made it; empty when it has just gone."""
        try:
            found = self._client.inspect_container(name)
        except NotFound:
            return "", ""
        return str(found["Id"]), str((found["Config"].get("Labels") or {}).get(_FILLER, ""))

    def _remove_stale(self, container_id: str, name: str) -> None:
        """Remove the container of a server that died while it filled the volume.

        By its id: somebody else may have removed it by now, and have made another one.
        """
        try:
            self._client.remove_container(container_id, force=True, v=True)
        except NotFound:
            return
        except APIError as error:
            if is_gone(error):
                return
            raise EngineError(f"The container {name} is in the way and cannot be removed; remove it.") from error

    def _holds(self, carrier: str, program: bytes) -> bool:
        try:
            stream, _ = self._client.get_archive(carrier, SUPERVISOR)
        except NotFound:
            return False
        with tarfile.open(fileobj=io.BytesIO(b"".join(stream))) as archive:
            members = [archive.extractfile(member) for member in archive if member.isfile() and member.mode & 0o111]
            return any(member is not None and member.read() == program for member in members)


def _archive(program: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        entry = tarfile.TarInfo("supervisor")
        entry.size, entry.mode = len(program), 0o755
        archive.addfile(entry, io.BytesIO(program))
    return buffer.getvalue()
