"""The public keys of an authorization server, as its JWKS has them: cached, fetched by one request at a time."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping

import anyio
import httpx2
import jwt
import structlog

from taskcell.errors import TaskcellError

log = structlog.get_logger(__name__)

#: Seconds for the whole answer, however slowly it comes; the request that needs a key waits for it.
FETCH_TIMEOUT = 5.0
#: Bytes of the answer: a hundred keys are a tenth of it.
MAX_JWKS = 1 << 20
#: Seconds after which keys are fetched again, so that a withdrawn key is not taken for long.
REFRESH_AFTER = 300.0
#: Seconds for which keys are good while the server cannot be reached.
MAX_AGE = 3600.0
#: Seconds between two fetches, whatever key ids clients make up, and whatever fails.
FETCH_INTERVAL = 10.0


class KeysUnavailable(TaskcellError):
    """The authorization server's keys cannot be fetched now, so that nobody can tell whether a JWT is genuine."""


class Jwks:
    """The keys at an address. Only a request that needs a key that is not there waits for a fetch.

    Arguments:
        url: of the JWKS.
        client: for tests, which have no server on the network.
    """

    def __init__(self, url: str, client: httpx2.AsyncClient | None = None) -> None:
        self._url = url
        self._client = client
        self._keys: Mapping[str, jwt.PyJWK] = {}
        self._fetched = self._tried = float("-inf")
        self._fetching = anyio.Lock()

    async def key(self, identity: str) -> jwt.PyJWK | None:
        """Return the key of that id, or None if the server has no such key. Raises KeysUnavailable."""
        found = self._known(identity)
        is_stale = time.monotonic() - self._fetched > REFRESH_AFTER
        if found is None or (is_stale and not self._fetching.statistics().locked):
            await self._refresh(identity)
            found = self._known(identity)
        if found is None and time.monotonic() - self._fetched > MAX_AGE:
            raise KeysUnavailable("The keys of the authorization server cannot be fetched now; try again soon.")
        return found

    def _known(self, identity: str) -> jwt.PyJWK | None:
        return self._keys.get(identity) if time.monotonic() - self._fetched <= MAX_AGE else None

    async def _refresh(self, identity: str) -> None:
        """Fetch the keys unless that has just been tried. A failure is a line in the log."""
        needed = self._known(identity) is None
        async with self._fetching:
            if (needed and self._known(identity) is not None) or time.monotonic() - self._tried < FETCH_INTERVAL:
                return
            self._tried = time.monotonic()
            try:
                with anyio.fail_after(FETCH_TIMEOUT):
                    self._keys = _parse(await self._fetch())
                self._fetched = time.monotonic()
            except (httpx2.HTTPError, TimeoutError, ValueError, TypeError, jwt.PyJWTError) as error:
                reason = "it takes too long" if isinstance(error, TimeoutError) else str(error) or type(error).__name__
                log.warning("The JWKS could not be fetched.", url=self._url, reason=reason)

    async def _fetch(self) -> bytes:
        if self._client is not None:
            return await self._read(self._client)
        async with httpx2.AsyncClient(timeout=FETCH_TIMEOUT, follow_redirects=False) as client:
            return await self._read(client)

    async def _read(self, client: httpx2.AsyncClient) -> bytes:
        async with client.stream("GET", self._url, headers={"accept": "application/json"}) as response:
            response.raise_for_status()
            data = bytearray()
            async for piece in response.aiter_bytes():
                data += piece
                if len(data) > MAX_JWKS:
                    raise ValueError(f"it has more than {MAX_JWKS} bytes")
            return bytes(data)


def _parse(data: bytes) -> Mapping[str, jwt.PyJWK]:
    """Return the keys by their id; a key without one has the empty id. Raises ValueError, PyJWTError."""
    document = json.loads(data)
    if not isinstance(document, dict):
        raise TypeError("it is not a JSON object")
    keys = jwt.PyJWKSet.from_dict(document).keys
    return {key.key_id or "": key for key in keys if key.public_key_use in (None, "sig")}
