"""Bearer tokens: `taskcell token` writes a file of their hashes, and the server looks at it with each request."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import secrets
import stat
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from taskcell.caller import Scope, format_scopes, parse_scopes
from taskcell.deployment.state_files import lock, read_own, replace, why
from taskcell.errors import BadArgument, TaskcellError
from taskcell.model import LOCAL_PRINCIPAL

#: What a token begins with, so that people and scanners for secrets know it.
TOKEN_BEGINS = "taskcell"  # noqa: S105 - the part of a token that is no secret
#: Bytes of a token's secret part, and of its id, which is public. A secret of 256 random bits needs no slow hash.
SECRET_SIZE, ID_SIZE = 32, 6
#: Bytes of the file: about 10,000 tokens.
MAX_TOKENS_FILE = 4 << 20
#: Seconds for another `taskcell token` to finish writing, which takes milliseconds.
WRITER_PATIENCE, WRITER_POLL = 5.0, 0.05
_SUBJECT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,127}")
_VERSION = 1
#: What a token with an unknown id is compared with.
_NO_HASH = "0" * 64


class TokensUnreadable(TaskcellError):
    """The file of tokens cannot be used, so nobody can sign in with one. The operator must act."""


@dataclass(frozen=True, slots=True)
class Token:
    """What is kept about a token. Times are seconds of the wall clock; `expires` None means never."""

    id: str
    subject: str
    scopes: frozenset[Scope]
    created: float
    expires: float | None
    hash: str

    @property
    def is_expired(self) -> bool:
        return self.expires is not None and self.expires <= time.time()

    def structured(self) -> dict[str, Any]:
        """As `taskcell token list --json` shows it."""
        shown = {"id": self.id, "subject": self.subject, "scopes": format_scopes(self.scopes).split()}
        return {**shown, "created": self.created, "expires": self.expires, "expired": self.is_expired}


class TokenFile:
    """The tokens in a file. A change of the file counts from the next look on.

    Arguments:
        path: absolute. Where there is no such file, there are no tokens.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seen: tuple[int, int, int] | None = None
        self._tokens: Mapping[str, Token] = {}

    def tokens(self) -> Mapping[str, Token]:
        """The tokens by id, as the file has them now. Raises TokensUnreadable."""
        try:
            found = self.path.stat(follow_symlinks=False)
        except FileNotFoundError:
            self._seen, self._tokens = None, {}
            return self._tokens
        except OSError as error:
            raise TokensUnreadable(f"{self.path} cannot be read: {why(error)}.") from None
        seen = (found.st_mtime_ns, found.st_ino, found.st_size)
        if seen != self._seen:
            if stat.S_IMODE(found.st_mode) & 0o077:
                raise TokensUnreadable(f"Others than its owner may use {self.path}; run `chmod 600` on it.")
            self._tokens, self._seen = self._read(), seen
        return self._tokens

    def _read(self) -> Mapping[str, Token]:
        try:
            document = json.loads(read_own(self.path, MAX_TOKENS_FILE))
            tokens = [_token(table) for table in document["tokens"]]
        except OSError as error:
            raise TokensUnreadable(f"{self.path} cannot be read: {why(error)}.") from None
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            raise TokensUnreadable(f"{self.path} is not what `taskcell token` writes; restore or delete it.") from None
        return {token.id: token for token in tokens}

    def find(self, text: str) -> Token | None:
        """Return the token that a client sent, or None if it is unknown, revoked or expired. Raises TokensUnreadable.

        The secret is compared in constant time; the id beside it is not secret.
        """
        prefix, _, rest = text.partition("_")
        token = self.tokens().get(rest.partition("_")[0]) if prefix == TOKEN_BEGINS else None
        is_it = hmac.compare_digest(_hash(text), token.hash if token is not None else _NO_HASH)
        return token if token is not None and is_it and not token.is_expired else None

    def has(self, token: Token) -> bool:
        """Whether the token still counts. Raises TokensUnreadable."""
        return self.tokens().get(token.id) == token and not token.is_expired

    # --- for `taskcell token` ------------------------------------------------------------------------------------

    def create(self, subject: str, scopes: frozenset[Scope], lifetime: float | None) -> tuple[Token, str]:
        """Add a token; return it with its text, which is kept nowhere. Raises BadArgument, TokensUnreadable.

        Arguments:
            lifetime: seconds; None means without an end.
        """
        check_subject(subject)
        identity = secrets.token_hex(ID_SIZE)
        text = f"{TOKEN_BEGINS}_{identity}_{secrets.token_urlsafe(SECRET_SIZE)}"
        now = time.time()
        token = Token(identity, subject, scopes, now, None if lifetime is None else now + lifetime, _hash(text))
        with self._locked():
            self._write([*self.tokens().values(), token])
        return token, text

    def revoke(self, ids: Collection[str]) -> None:
        """Remove tokens. Raises BadArgument if one of the ids is unknown: then none is removed; TokensUnreadable."""
        with self._locked():
            tokens = self.tokens()
            unknown = [identity for identity in ids if identity not in tokens]
            if unknown:
                names = ", ".join(map(repr, unknown))
                raise BadArgument(f"There is no token with the id {names}; `taskcell token list` shows the ids.")
            self._write([token for token in tokens.values() if token.id not in ids])

    def _write(self, tokens: list[Token]) -> None:
        tables = [
            {
                "id": token.id,
                "subject": token.subject,
                "scopes": format_scopes(token.scopes),
                "created": token.created,
                "expires": token.expires,
                "hash": token.hash,
            }
            for token in tokens
        ]
        data = json.dumps({"version": _VERSION, "tokens": tables}, indent=1).encode()
        if len(data) > MAX_TOKENS_FILE:
            raise BadArgument(
                f"{self.path} would have more than {MAX_TOKENS_FILE} bytes; revoke tokens that nobody uses."
            )
        try:
            replace(self.path, data)
        except OSError as error:
            raise TokensUnreadable(f"{self.path} cannot be written: {why(error)}.") from None

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep other writers away, for what they added would be lost. Raises TokensUnreadable."""
        deadline, path = time.monotonic() + WRITER_PATIENCE, self.path.with_name(f"{self.path.name}.lock")
        while True:
            try:
                held = lock(path, create=True)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise TokensUnreadable(f"Another program holds {path}; try again when it has ended.") from None
                time.sleep(WRITER_POLL)
            except OSError as error:
                raise TokensUnreadable(f"{path} cannot be made: {why(error)}.") from None
        try:
            yield
        finally:
            os.close(held)


def check_subject(subject: str) -> None:
    """Raise BadArgument unless the text may name the principal of a token."""
    if not _SUBJECT.fullmatch(subject):
        raise BadArgument(
            f"'{subject}' cannot name whom a token is for; use at most 128 letters, digits, '.', '_', '@', '+' or '-', "
            "with a letter or a digit first."
        )
    if subject == LOCAL_PRINCIPAL:
        raise BadArgument(f"'{LOCAL_PRINCIPAL}' is the user of this machine; choose another name for the token.")


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _token(table: Mapping[str, Any]) -> Token:
    """Raises ValueError, TypeError, KeyError or BadArgument if a table is not a token's."""
    texts = [table[name] for name in ("id", "subject", "scopes", "hash")]
    times = [table["created"], *([] if table["expires"] is None else [table["expires"]])]
    if not all(isinstance(text, str) for text in texts) or not all(isinstance(time, int | float) for time in times):
        raise TypeError
    identity, subject, scopes, hashed = texts
    if not _SUBJECT.fullmatch(subject) or subject == LOCAL_PRINCIPAL or len(hashed) != len(_NO_HASH):
        raise ValueError
    return Token(identity, subject, parse_scopes(scopes), float(times[0]), table["expires"], hashed)
