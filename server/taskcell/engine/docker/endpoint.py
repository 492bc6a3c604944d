"""Finds the engine in the places that the docker command line looks at, in the same order."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from docker.context import ContextAPI
from docker.errors import DockerException
from docker.tls import TLSConfig

from taskcell.errors import EngineUnavailable

#: Seconds for a socket of this machine to accept; one that takes longer has no engine behind it.
PROBE_TIMEOUT = 2.0
#: The system's own sockets: Docker's, tried first, and rootful Podman's, tried last.
SYSTEM_SOCKETS = (Path("/var/run/docker.sock"), Path("/run/podman/podman.sock"))
#: Below the home folder, in order: Docker Desktop (macOS, Linux), Colima, OrbStack, Rancher Desktop, Lima.
_HOME_SOCKETS = (
    ".docker/run/docker.sock",
    ".docker/desktop/docker.sock",
    ".colima/default/docker.sock",
    ".orbstack/run/docker.sock",
    ".rd/docker.sock",
    ".lima/docker/sock/docker.sock",
)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """How to reach the engine. `origin` says where that was found."""

    url: str = field(repr=False)
    origin: str
    tls: TLSConfig | None = None

    @property
    def shown(self) -> str:
        """The address without a password that it may hold."""
        parts = urlsplit(self.url)
        return self.url if parts.password is None else self.url.replace(f":{parts.password}@", ":…@", 1)

    @property
    def socket(self) -> str:
        """Path of the engine's socket on this machine; empty when it is reached over a network."""
        for prefix in ("unix://", "http+unix://"):
            if self.url.startswith(prefix):
                return "/" + self.url.removeprefix(prefix).lstrip("/")
        return ""


def find_endpoint(host: str, environ: Mapping[str, str]) -> Endpoint:
    """The configured host, DOCKER_HOST, the current docker context, or the first usual socket that accepts.

    Raises EngineUnavailable, which names the places that were tried.
    """
    if host:
        return Endpoint(host, "the configuration's engine.host", _tls_from(environ, host))
    if environ.get("DOCKER_HOST"):
        return Endpoint(environ["DOCKER_HOST"], "DOCKER_HOST", _tls_from(environ, environ["DOCKER_HOST"]))
    context = _context(environ)
    if context is not None:
        return context
    tried = []
    for path in _usual_sockets(environ):
        if _accepts(path):
            return Endpoint(f"unix://{path}", "the usual sockets")
        tried.append(str(path))
    raise EngineUnavailable(
        f"No container engine answers (tried {', '.join(tried)}). "
        "The person who runs the server must start Docker, or name its address in DOCKER_HOST or the configuration's "
        "engine.host."
    )


def _tls_from(environ: Mapping[str, str], url: str) -> TLSConfig | None:
    if not url.startswith(("tcp://", "https://")) or not environ.get("DOCKER_TLS_VERIFY"):
        return None
    folder = Path(environ.get("DOCKER_CERT_PATH") or Path(environ.get("HOME", "/")) / ".docker")
    pair = (str(folder / "cert.pem"), str(folder / "key.pem"))
    try:
        return TLSConfig(client_cert=pair, ca_cert=str(folder / "ca.pem"), verify=True)
    except DockerException as error:
        raise EngineUnavailable(f"The engine's TLS certificates in {folder} cannot be used: {error}.") from error


def _context(environ: Mapping[str, str]) -> Endpoint | None:
    try:
        name = environ.get("DOCKER_CONTEXT") or ContextAPI.get_current_context().name
        if name == "default":
            return None
        context = ContextAPI.get_context(name)
    except DockerException as error:
        raise EngineUnavailable(f"The docker context cannot be read: {error}.") from error
    if context is None or not context.Host:
        raise EngineUnavailable(f"There is no docker context '{name}'; on the host, `docker context ls` lists them.")
    return Endpoint(context.Host, f"the docker context '{name}'", context.TLSConfig or None)


def _usual_sockets(environ: Mapping[str, str]) -> Iterator[Path]:
    yield SYSTEM_SOCKETS[0]
    runtime, home = environ.get("XDG_RUNTIME_DIR"), environ.get("HOME")
    if runtime:
        yield Path(runtime) / "docker.sock"
    if home:
        yield from (Path(home) / relative for relative in _HOME_SOCKETS)
    yield from SYSTEM_SOCKETS[1:]
    if runtime:
        yield Path(runtime) / "podman/podman.sock"


def _accepts(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(PROBE_TIMEOUT)
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True
