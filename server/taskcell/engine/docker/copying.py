"""Copies one container's workspace into others, at the speed of memory. Everything here blocks.

A mount cannot be added to a container that runs. So a container that lives for the copy alone mounts all of the
volumes, and the supervisor's program copies in it. It is root with four capabilities, for a task's files may belong to
several users; nothing but that program runs in it.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress

from docker.errors import APIError
from docker.types import LogConfig, Mount

from taskcell.engine.base import Container
from taskcell.engine.docker import creation
from taskcell.engine.docker.connection import Connection
from taskcell.engine.docker.hardening import SUPERVISOR, SUPERVISOR_FOLDER, SUPERVISOR_LABELS
from taskcell.errors import EngineError
from taskcell.text import PATH_SHOWN, shown

#: What reading another user's files, and giving them to that user, takes.
CAPABILITIES = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID")
_FROM, _TO = "/from", "/to"
#: Processes in it: the program, its second worker, and the threads of a runtime such as gVisor's.
_PROCESSES = 64


def copy(on: Connection, source: Container, targets: Sequence[Container], runtime: str) -> list[str]:
    """Copy; returns for each target why its copy is not whole, or an empty text. Raises APIError, EngineError.

    Arguments:
        targets: COPIES_AT_ONCE at most; what is in their workspaces goes.
        runtime: of the engine; empty means its default.
    """
    image = on.looks.image(targets[0].image_id)
    # With the labels of its source the next server removes one that a killed server has made and not started.
    own = on.looks.labels(source.id)
    mounts = [
        Mount(SUPERVISOR_FOLDER, on.supervisors.ensure(image), type="volume", read_only=True, labels=SUPERVISOR_LABELS),
        Mount(_FROM, source.volume, type="volume", read_only=True, no_copy=True),
        *(Mount(f"{_TO}{number}", one.volume, type="volume", no_copy=True) for number, one in enumerate(targets)),
    ]
    host = on.client.create_host_config(
        auto_remove=True,
        cap_drop=["ALL"],
        cap_add=list(CAPABILITIES),
        security_opt=["no-new-privileges"],
        read_only=True,
        network_mode="none",
        pids_limit=_PROCESSES,
        mounts=mounts,
        log_config=LogConfig(type="none"),
        runtime=runtime or None,
    )
    config = on.client.create_container_config(
        image["Id"],
        ["transfer", "copy", _FROM, *(f"{_TO}{number}" for number in range(len(targets)))],
        entrypoint=[SUPERVISOR],
        user="0:0",
        working_dir="/",
        labels={**own, "taskcell.kind": "copier"},
        healthcheck={"test": ["NONE"]},
        host_config=host,
    )
    copier = str(on.client.create_container_from_config(config, f"taskcell-copy-{secrets.token_hex(8)}")["Id"])
    try:
        output = on.client.attach(copier, stdout=True, stderr=True, stream=True)
        on.client.start(copier)
        # The last line, not the container's end, which the engine takes a tenth of a second to notice.
        return outcomes(output, len(targets))
    except BaseException:
        with suppress(APIError):
            creation.remove(on.client, copier)
        raise


def outcomes(output: Iterable[bytes], count: int) -> list[str]:
    """What the program says about each folder: why its copy is not whole; empty for a whole one.

    Raises EngineError: it ended without a word on one of them.
    """
    found: dict[int, str] = {}
    said = []
    for line in _lines(output):
        number, _, how = line.partition(" ")
        if number.isdecimal() and int(number) < count and how:
            found.setdefault(int(number), "" if how == "ok" else how)
        else:
            said.append(line)
        if len(found) == count:
            return [found[number] for number in range(count)]
    why = f": {shown(' '.join(said), PATH_SHOWN)}" if said else ""
    raise EngineError(f"What copies files ended too early{why}. Call again.")


def _lines(output: Iterable[bytes]) -> Iterator[str]:
    rest = b""
    for piece in output:
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            yield line.decode("utf-8", "replace")
    if rest:
        yield rest.decode("utf-8", "replace")
