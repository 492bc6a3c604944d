"""Ask the container engine something before anything but Python is there: no packages, no docker program.

    engine_answer.py version            prints API version, version and address of the engine that answers
    engine_answer.py label IMAGE NAME   prints a label of an image, or nothing

Looks where the server looks: DOCKER_HOST, the current docker context, the usual sockets. Exit code 1: none answers.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

#: Seconds; an engine answers these questions in milliseconds, unless it is just starting or its disk is busy.
TIMEOUT = 10


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=TIMEOUT)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(TIMEOUT)
        self.sock.connect(self._path)


def context_address() -> str | None:
    """Return the address in the current docker context; None for the default one."""
    folder = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
    try:
        config = json.loads((folder / "config.json").read_text())
        name = os.environ.get("DOCKER_CONTEXT") or config.get("currentContext") or "default"
        if name == "default":
            return None
        meta = folder / "contexts" / "meta" / hashlib.sha256(name.encode()).hexdigest() / "meta.json"
        address = json.loads(meta.read_text())["Endpoints"]["docker"]["Host"]
    except (OSError, ValueError, KeyError):
        return None
    return str(address)


def addresses() -> Iterator[str]:
    """Yield where an engine may be; a place that somebody named is the only one."""
    named = os.environ.get("DOCKER_HOST") or context_address()
    if named:
        yield named
        return
    yield "unix:///var/run/docker.sock"
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        yield f"unix://{runtime}/docker.sock"
    yield f"unix://{Path.home()}/.docker/run/docker.sock"


def ask(address: str, path: str) -> dict[str, Any] | None:
    """Return the engine's JSON answer to a GET; None when it does not answer, or not with success."""
    parts = urlsplit(address)
    if parts.scheme == "unix":
        connection: http.client.HTTPConnection = UnixConnection(parts.path)
    elif parts.scheme in ("tcp", "http") and parts.hostname and not os.environ.get("DOCKER_TLS_VERIFY"):
        connection = http.client.HTTPConnection(parts.hostname, parts.port or 2375, timeout=TIMEOUT)
    else:
        return None
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = json.loads(answer.read())
    except (OSError, ValueError, http.client.HTTPException):
        return None
    finally:
        connection.close()
    return body if answer.status == 200 and isinstance(body, dict) else None


def main(arguments: list[str]) -> int:
    for address in addresses():
        version = ask(address, "/version")
        if version is None:
            continue
        if arguments[:1] == ["label"]:
            image = ask(address, f"/images/{quote(arguments[1], safe=':/')}/json")
            config = (image or {}).get("Config") or {}
            print((config.get("Labels") or {}).get(arguments[2], ""))
        else:
            print(version.get("ApiVersion", "?"), version.get("Version", "?"), address)
        return 0
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
