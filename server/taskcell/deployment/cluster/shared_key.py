"""The key of a cluster's deployment, in a Secret."""

from __future__ import annotations

import base64
import secrets

from taskcell.deployment.cluster.objects import Objects
from taskcell.deployment.state_files import KEY_SIZE
from taskcell.errors import EngineError


async def shared_key(objects: Objects) -> bytes:
    """The deployment's key; the first server makes it. Raises EngineUnavailable, EngineError."""
    name = objects.name("key")
    fresh = base64.b64encode(secrets.token_bytes(KEY_SIZE)).decode()
    body = {"apiVersion": "v1", "kind": "Secret", "type": "Opaque", "data": {"key": fresh}, "immutable": True}
    meta = {"name": name, "labels": objects.labels()}
    found = await objects.found("secrets", name)
    found = found or await objects.make("secrets", body | {"metadata": meta})
    found = found or await objects.found("secrets", name)  # another server was faster
    key = base64.b64decode(str((found or {}).get("data", {}).get("key", "")))
    if len(key) != KEY_SIZE:
        raise EngineError(f"The Secret {name} is not a deployment's key; delete it, and the sandboxes with it.")
    return key
