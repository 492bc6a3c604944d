"""JSON Web Tokens: which count, and what a bad or slow authorization server does."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import anyio
import httpx2
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from taskcell.auth import jwks as module
from taskcell.auth.jwks import Jwks, KeysUnavailable
from taskcell.auth.jwt_tokens import InvalidJwt, JwtTokens
from taskcell.caller import Caller, Scope

pytestmark = pytest.mark.anyio

ISSUER, AUDIENCE, URL = "https://login.example.org", "https://cells.example.org/mcp", "https://login.example.org/keys"
#: Seconds; tokens are made when tests are collected, and the last of a slow run is judged an hour later.
LIFETIME = 86400
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC = ec.generate_private_key(ec.SECP256R1())


def published(**keys: Any) -> dict[str, Any]:
    """The JWKS with these keys by their ids."""
    found = []
    for identity, key in keys.items():
        kind = RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else ECAlgorithm
        found.append({**json.loads(kind.to_jwk(key.public_key())), "kid": identity, "use": "sig"})
    return {"keys": found}


class AuthorizationServer:
    """What is at the JWKS's address; `asked` counts the requests."""

    def __init__(self, document: Any) -> None:
        self.document = document
        self.asked = 0
        self.answer: Callable[[], Any] | None = None

    async def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.asked += 1
        if self.answer is not None:
            await self.answer()
        if isinstance(self.document, bytes):
            return httpx2.Response(200, content=self.document)
        return httpx2.Response(200 if self.document is not None else 500, json=self.document)

    def keys(self) -> Jwks:
        return Jwks(URL, httpx2.AsyncClient(transport=httpx2.MockTransport(self)))

    def tokens(self) -> JwtTokens:
        return JwtTokens(ISSUER, AUDIENCE, self.keys())


def claims(**other: Any) -> dict[str, Any]:
    now = int(time.time())
    usual = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "ada",
        "exp": now + LIFETIME,
        "iat": now,
        "scope": "openid terminal",
    }
    return {name: value for name, value in {**usual, **other}.items() if value is not None}


def signed(key: Any = RSA, identity: str = "one", algorithm: str = "RS256", **other: Any) -> str:
    return jwt.encode(claims(**other), key, algorithm=algorithm, headers={"kid": identity})


async def test_a_token_of_the_issuer_for_the_audience_counts_with_its_scopes() -> None:
    tokens = AuthorizationServer(published(one=RSA, two=EC)).tokens()
    assert await tokens.check(signed()) == Caller("ada", frozenset({Scope.TERMINAL}))
    many = signed(EC, "two", "ES256", aud=["https://x", AUDIENCE], scope=None, scp=["files", "skills", 3])
    assert await tokens.check(many) == Caller("ada", frozenset({Scope.FILES, Scope.SKILLS}))
    assert (await tokens.check(signed(scope=None))).scopes == frozenset()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (signed(exp=int(time.time()) - 60), "expired"),
        (signed(nbf=int(time.time()) + LIFETIME), "not valid yet"),
        (signed(aud="https://elsewhere"), "another audience"),
        (signed(aud=None), "no claim 'aud'"),
        (signed(iss="https://evil"), "another issuer"),
        (signed(iss=None), "no claim 'iss'"),
        (signed(exp=None), "no claim 'exp'"),
        (signed(sub=None), "no claim 'sub'"),
        (signed(sub="local"), "subject cannot name"),
        (signed(sub=""), "subject cannot name"),
        (signed(sub="a\nb"), "subject cannot name"),
        (signed(OTHER), "not valid"),
        (signed(identity="unknown"), "does not publish"),
        (signed(EC, "one", "ES256"), "not valid"),
        (jwt.encode(claims(), None, algorithm="none"), "not signed with a public key"),
        (jwt.encode(claims(), "k" * 64, algorithm="HS256", headers={"kid": "one"}), "not signed with a public key"),
        ("a.b.c", "not valid"),
        ("nonsense", "not valid"),
        (signed().rpartition(".")[0] + ".", "not valid"),
    ],
)
async def test_any_other_token_is_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(InvalidJwt, match=reason):
        await AuthorizationServer(published(one=RSA)).tokens().check(text)


async def test_a_public_key_is_never_taken_for_a_shared_secret() -> None:
    pem = RSA.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    from jwt.utils import base64url_encode, force_bytes

    head = base64url_encode(force_bytes(json.dumps({"alg": "HS256", "kid": "one"}))).decode()
    body = base64url_encode(force_bytes(json.dumps(claims()))).decode()
    import hashlib
    import hmac

    seal = base64url_encode(hmac.new(pem, f"{head}.{body}".encode(), hashlib.sha256).digest()).decode()
    with pytest.raises(InvalidJwt):
        await AuthorizationServer(published(one=RSA)).tokens().check(f"{head}.{body}.{seal}")


async def test_a_rotated_key_is_fetched_and_the_old_one_stops_to_count(monkeypatch: pytest.MonkeyPatch) -> None:
    server = AuthorizationServer(published(one=RSA))
    tokens = server.tokens()
    await tokens.check(signed())
    server.document = published(two=OTHER)
    monkeypatch.setattr(module, "FETCH_INTERVAL", 0.0)
    await tokens.check(signed(OTHER, "two"))
    with pytest.raises(InvalidJwt, match="does not publish"):
        await tokens.check(signed())


async def test_made_up_key_ids_fetch_the_keys_no_more_than_once_in_a_while() -> None:
    server = AuthorizationServer(published(one=RSA))
    tokens = server.tokens()
    await tokens.check(signed())
    for number in range(20):
        with pytest.raises(InvalidJwt):
            await tokens.check(signed(identity=f"made-up-{number}"))
    assert server.asked == 1


async def test_keys_that_hang_hold_up_only_the_request_that_needs_a_new_one(monkeypatch: pytest.MonkeyPatch) -> None:
    server = AuthorizationServer(published(one=RSA))
    tokens = server.tokens()
    await tokens.check(signed())
    monkeypatch.setattr(module, "FETCH_INTERVAL", 0.0)
    monkeypatch.setattr(module, "FETCH_TIMEOUT", 0.5)
    hanging = anyio.Event()

    async def hang() -> None:
        hanging.set()
        await anyio.sleep_forever()

    server.answer = hang
    with anyio.fail_after(10):
        async with anyio.create_task_group() as asking:

            async def ask() -> None:
                with pytest.raises(InvalidJwt, match="does not publish"):
                    await tokens.check(signed(OTHER, "two"))

            asking.start_soon(ask)
            await hanging.wait()
            assert (await tokens.check(signed())).principal == "ada"


@pytest.mark.parametrize("document", [None, [], {"keys": 1}, {"keys": []}, b"<html>", b"x" * (2 << 20), {}])
async def test_without_keys_nobody_can_tell_and_that_is_no_refusal(document: Any) -> None:
    with pytest.raises(KeysUnavailable):
        await AuthorizationServer(document).tokens().check(signed())
