"""JSON Web Tokens of an authorization server, checked against its keys."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from typing import Any

import jwt

from taskcell.auth.jwks import Jwks
from taskcell.caller import Caller, parse_scopes
from taskcell.model import LOCAL_PRINCIPAL

#: Signatures with a public key alone: with a symmetric algorithm, whoever knows the public key could sign.
ALGORITHMS = (
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512", "EdDSA"),
)
#: Seconds that the clocks of the authorization server and of this machine may differ.
LEEWAY = 30
#: Characters of a subject: twice what OpenID Connect Core 1.0, section 2, allows.
MAX_SUBJECT = 512


class InvalidJwt(Exception):
    """The token does not count; the text says why, for the client."""


class JwtTokens:
    """Checks the tokens of one issuer for one audience.

    Arguments:
        issuer, audience: what the claims `iss` and `aud` must be.
    """

    def __init__(self, issuer: str, audience: str, keys: Jwks) -> None:
        self._issuer = issuer
        self._audience = audience
        self._keys = keys

    async def check(self, text: str) -> Caller:
        """Return whose token it is. Raises InvalidJwt, KeysUnavailable."""
        try:
            header = jwt.get_unverified_header(text)
            algorithm, identity = header.get("alg"), header.get("kid", "")
            if algorithm not in ALGORITHMS:
                raise InvalidJwt("The token is not signed with a public key.")
            if not isinstance(identity, str):
                raise InvalidJwt("The token's key id is not a text.")
            key = await self._keys.key(identity)
            if key is None:
                raise InvalidJwt("The token is signed with a key that its issuer does not publish.")
            claims = jwt.decode(
                text,
                key,
                algorithms=[algorithm],
                audience=self._audience,
                issuer=self._issuer,
                leeway=LEEWAY,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
        except jwt.PyJWTError as error:
            raise InvalidJwt(_sentence(error)) from None
        return Caller(_subject(claims), parse_scopes(_scopes(claims)))


def _sentence(error: jwt.PyJWTError) -> str:
    match error:
        case jwt.ExpiredSignatureError():
            return "The token has expired."
        case jwt.InvalidAudienceError():
            return "The token is for another audience."
        case jwt.InvalidIssuerError():
            return "The token is from another issuer."
        case jwt.MissingRequiredClaimError():
            return f"The token has no claim '{error.claim}'."
        case jwt.ImmatureSignatureError():
            return "The token is not valid yet."
        case _:
            return "The token is not valid."


def _subject(claims: Mapping[str, Any]) -> str:
    subject = claims["sub"]
    is_plain = isinstance(subject, str) and all(unicodedata.category(mark)[0] != "C" for mark in subject)
    if not is_plain or not 0 < len(subject) <= MAX_SUBJECT or subject == LOCAL_PRINCIPAL:
        raise InvalidJwt("The token's subject cannot name a user of this server.")
    return str(subject)


def _scopes(claims: Mapping[str, Any]) -> str:
    """The claim `scope` (RFC 9068), or `scp` as some authorization servers write it."""
    scopes = claims.get("scope", claims.get("scp", ""))
    if isinstance(scopes, list):
        scopes = " ".join(word for word in scopes if isinstance(word, str))
    return scopes if isinstance(scopes, str) else ""
