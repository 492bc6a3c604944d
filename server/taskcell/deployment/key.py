"""What is derived from a deployment's key, which all of its servers have and nobody else."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from dataclasses import asdict

from taskcell.caller import Caller, format_scopes, parse_scopes
from taskcell.model import Profile

#: What the token of a call begins with that a server hands on.
PEER_BEGINS = "tcp_"


def token(key: bytes, nonce: str) -> bytes:
    """The token by which a supervisor recognises its servers."""
    return hmac.new(key, f"token:{nonce}".encode(), hashlib.sha256).hexdigest().encode()


def fingerprint(key: bytes, profile: Profile) -> str:
    """A text that is equal for equal profiles only, and reveals nothing about them."""
    text = json.dumps(asdict(profile), sort_keys=True, default=str)
    return hmac.new(key, f"profile:{text}".encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()[:32]


def peer_token(key: bytes, instance: str, caller: Caller) -> str:
    """The token by which a server hands a caller's call on to another: good for that caller, and that server alone.

    It holds as long as the server that it is for, whose name is never used again; no two clocks have to agree.

    Arguments:
        instance: the name of the server that it is for.
    """
    words = {"principal": caller.principal, "scopes": format_scopes(caller.scopes)}
    said = base64.urlsafe_b64encode(json.dumps(words).encode()).decode()
    return f"{PEER_BEGINS}{said}.{_signed(key, instance, said)}"


def caller_of_peer(key: bytes, instance: str, token: str) -> Caller | None:
    """The caller whose call another server hands on; None for a token that no server of the deployment has made.

    Arguments:
        instance: the name of this server.
    """
    if not key or not instance:  # it has not joined: everybody could sign with that
        return None
    said, _, signature = token.removeprefix(PEER_BEGINS).rpartition(".")
    if not token.startswith(PEER_BEGINS) or not hmac.compare_digest(signature, _signed(key, instance, said)):
        return None
    words = json.loads(base64.urlsafe_b64decode(said))
    return Caller(words["principal"], parse_scopes(words["scopes"]))


def _signed(key: bytes, instance: str, said: str) -> str:
    return hmac.new(key, f"peer:{instance}:{said}".encode(), hashlib.sha256).hexdigest()
