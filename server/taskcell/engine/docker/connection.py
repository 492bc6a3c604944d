"""A connection to an engine that has answered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from docker import APIClient

from taskcell.engine.docker.endpoint import Endpoint, find_endpoint
from taskcell.engine.docker.image_users import ImageUsers
from taskcell.engine.docker.looks import Looks
from taskcell.engine.docker.supervisor_volume import SupervisorVolumes
from taskcell.engine.docker.traits import Traits, traits_of
from taskcell.errors import EngineUnavailable

#: Oldest API with everything that a sandbox needs (Docker Engine 20.10: one-shot statistics, cgroup v2).
OLDEST_API = (1, 41)
#: Seconds for one request; creating on a busy disk is the slowest that is not a pull or a build, which are bounded by
#: their silence.
CALL_TIMEOUT = 60


@dataclass(frozen=True, slots=True)
class Connection:
    """A client that speaks the engine's API version, where it connects to, and what was found out about the engine."""

    client: APIClient
    endpoint: Endpoint
    supervisors: SupervisorVolumes
    traits: Traits
    users: ImageUsers
    looks: Looks


def connect(host: str, environ: Mapping[str, str]) -> Connection:
    """Find the engine and agree on an API version. Blocking. Raises EngineUnavailable."""
    endpoint = find_endpoint(host, environ)
    try:
        client = APIClient(
            endpoint.url, version="auto", timeout=CALL_TIMEOUT, tls=endpoint.tls or False, use_ssh_client=True
        )
        traits = traits_of(client, is_here=bool(endpoint.socket))
    except Exception as error:
        raise EngineUnavailable(
            f"No container engine answers at {endpoint.shown} (from {endpoint.origin}). "
            "Start it, or name another address in DOCKER_HOST or the configuration's engine.host."
        ) from error
    version = str(client.api_version)
    if tuple(map(int, version.split("."))) < OLDEST_API:
        raise EngineUnavailable(
            f"The engine speaks API {version}, but 1.41 (Docker 20.10) or newer is needed; update it."
        )
    return Connection(client, endpoint, SupervisorVolumes(client), traits, ImageUsers(client), Looks(client))
