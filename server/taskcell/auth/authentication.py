"""Tells who sends a request over HTTP, from its header Authorization."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from taskcell.auth.jwks import Jwks
from taskcell.auth.jwt_tokens import InvalidJwt, JwtTokens
from taskcell.auth.tokens import TOKEN_BEGINS, TokenFile, TokensUnreadable
from taskcell.caller import LOCAL_CALLER, Caller
from taskcell.config.settings import Settings

#: Characters of a token; those of authorization servers with many claims have about 4,000.
MAX_TOKEN = 12_000


class Unauthenticated(Exception):
    """Nobody is signed in.

    Arguments:
        reason: why the token that was sent does not count; empty where none was sent.
    """

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class SignedIn:
    """Who sends a request, and whether that still holds: a token can be revoked while the request is served."""

    caller: Caller
    still_holds: Callable[[], bool] | None = None


class Authentication:
    """What the settings accept: tokens of a file, JSON Web Tokens, or, with neither, everybody as `local`."""

    def __init__(self, tokens: TokenFile | None, jwt: JwtTokens | None) -> None:
        self._tokens = tokens
        self._jwt = jwt
        #: The caller of a call that another server of the deployment hands on; None for other tokens.
        self.of_peer: Callable[[str], Caller | None] = lambda token: None

    @classmethod
    def of(cls, settings: Settings) -> Authentication:
        http = settings.http
        jwt = JwtTokens(http.issuer, http.audience, Jwks(http.jwks_url)) if http.jwks_url else None
        return cls(TokenFile(settings.tokens_file) if settings.tokens_file else None, jwt)

    @property
    def is_required(self) -> bool:
        return self._tokens is not None or self._jwt is not None

    @property
    def has_jwt(self) -> bool:
        """Whether clients can get a token from an authorization server."""
        return self._jwt is not None

    def check(self) -> None:
        """Raise TokensUnreadable if the file of tokens is there and cannot be used."""
        if self._tokens is not None:
            self._tokens.tokens()

    async def sign_in(self, authorization: str | None) -> SignedIn:
        """Return who sends a request. Raises Unauthenticated, TokensUnreadable, KeysUnavailable.

        Arguments:
            authorization: the header's value; None where the request has none.
        """
        if not self.is_required:
            return SignedIn(LOCAL_CALLER)
        if authorization is None:
            raise Unauthenticated
        scheme, _, text = authorization.partition(" ")
        text = text.strip()
        if scheme.lower() != "bearer" or not text or not text.isascii():
            raise Unauthenticated("The header Authorization must be 'Bearer' and a token.")
        if len(text) > MAX_TOKEN:
            raise Unauthenticated("The token is too long to be one.")
        if (caller := self.of_peer(text)) is not None:
            return SignedIn(caller)
        if self._tokens is not None and (self._jwt is None or text.startswith(f"{TOKEN_BEGINS}_")):
            return self._by_token(self._tokens, text)
        assert self._jwt is not None
        try:
            return SignedIn(await self._jwt.check(text))
        except InvalidJwt as error:
            raise Unauthenticated(str(error)) from None

    @staticmethod
    def _by_token(tokens: TokenFile, text: str) -> SignedIn:
        token = tokens.find(text)
        if token is None:
            raise Unauthenticated("The token is unknown, revoked or expired.")

        def still_holds() -> bool:
            try:
                return tokens.has(token)
            except TokensUnreadable:
                return True  # the next request finds out; a file that is being repaired must not end commands

        return SignedIn(Caller(token.subject, token.scopes), still_holds)
