"""What is derived from a deployment's key, which all of its servers have and nobody else."""

from __future__ import annotations

import hashlib
import hmac
import json
from dataclasses import asdict

from taskcell.model import Profile


def token(key: bytes, nonce: str) -> bytes:
    """The token by which a supervisor recognises its servers."""
    return hmac.new(key, f"token:{nonce}".encode(), hashlib.sha256).hexdigest().encode()


def fingerprint(key: bytes, profile: Profile) -> str:
    """A text that is equal for equal profiles only, and reveals nothing about them."""
    text = json.dumps(asdict(profile), sort_keys=True, default=str)
    return hmac.new(key, f"profile:{text}".encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()[:32]
