"""Runs a script in a container of an image, without a network, for what it prints."""

from __future__ import annotations

from contextlib import suppress

from docker import APIClient
from docker.errors import APIError
from requests.exceptions import RequestException

from taskcell.errors import EngineError

#: Seconds for the script; asking ten programs for their configuration takes one or two.
SCRIPT_TIMEOUT = 60


def image_output(client: APIClient, reference: str, script: str) -> str:
    """Return what the script printed. Raises EngineError."""
    limits = client.create_host_config(network_mode="none", mem_limit="512m", pids_limit=256, cap_drop=["ALL"])
    try:
        container = client.create_container(
            reference, ["-c", script], entrypoint=["/bin/sh"], host_config=limits, labels={"taskcell.script": "1"}
        )["Id"]
        try:
            client.start(container)
            client.wait(container, timeout=SCRIPT_TIMEOUT)
            printed: bytes = client.logs(container, stdout=True, stderr=False)
        finally:
            with suppress(APIError):
                client.remove_container(container, force=True, v=True)
    except (APIError, RequestException) as error:
        raise EngineError(f"The image {reference} could not be asked for its package managers: {error}.") from error
    return printed.decode("utf-8", "replace")
