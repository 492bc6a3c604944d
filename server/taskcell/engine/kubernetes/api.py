"""Calls to one API server in one namespace, over HTTP."""

from __future__ import annotations

import json
import random
from collections.abc import AsyncGenerator, Callable
from functools import cached_property
from typing import Any

import anyio
import anyio.to_thread
import httpx2

from taskcell.engine.kubernetes.kubeconfig import Cluster
from taskcell.errors import EngineError, EngineUnavailable

#: Seconds for one request; the API server answers in milliseconds, and an admission webhook may take up to 30.
API_TIMEOUT = 35.0
#: Seconds for which a watch is asked for, as the cluster's own clients do: one that hangs lasts hardly longer.
WATCH_FOR = 300
#: Connections at once: the watch of this server's pods, requests, and a watch for each pod that starts without it.
CONNECTIONS = 64
#: Seconds for which a request is made again when the API server is too busy for it (429 by priority and fairness, 503
#: while it starts) or does not answer: one that is restarted is back in five. What taskcell asks for may be asked
#: twice: what was made already says so, by its name. Seconds before the second attempt; that doubles.
API_PATIENCE, FIRST_BACK_OFF, LONGEST_BACK_OFF = 15.0, 0.25, 4.0
_BUSY = frozenset({429, 502, 503})
_UNAUTHORIZED = 401
#: Bytes of an answer, such as a list of ten thousand pods, and of one line of a watch: etcd has 1.5 MiB for an object.
ANSWER_MAX, WATCH_LINE_MAX = 1 << 28, 1 << 26
#: Characters of the API server's own words in an error.
_SAID = 400

PLAIN_JSON, JSON_PATCH = "application/json", "application/json-patch+json"


class ApiRefused(EngineError):
    """The API server refused a request; `status` is HTTP's, `reason` Kubernetes' own word.

    Arguments:
        after: seconds after which it is to be asked again, as it says.
    """

    def __init__(self, message: str, status: int, reason: str, after: float = 0.0) -> None:
        super().__init__(message)
        self.status, self.reason, self.after = status, reason, after

    @property
    def is_over_quota(self) -> bool:
        """The namespace's ResourceQuota has no room for it."""
        return self.status == 403 and "exceeded quota" in str(self)


class Api:
    """Raises EngineUnavailable when the server does not answer, and ApiRefused when it refuses.

    Arguments:
        find: finds the cluster; it may raise EngineError.
    """

    def __init__(self, find: Callable[[], Cluster]) -> None:
        self._find = find
        #: One that has never answered is named at once: its address may be wrong.
        self._has_answered = False

    @cached_property
    def cluster(self) -> Cluster:
        """Found at the first use."""
        return self._find()

    @cached_property
    def _http(self) -> httpx2.AsyncClient:
        limits = httpx2.Limits(max_connections=CONNECTIONS)
        cluster = self.cluster
        return httpx2.AsyncClient(
            base_url=cluster.server,
            verify=cluster.tls,
            timeout=API_TIMEOUT,
            limits=limits,
            headers=cluster.headers,
            proxy=cluster.proxy or None,
        )

    @property
    def _named(self) -> dict[str, str]:
        """By which name the server's certificate is checked, where that is not its address's."""
        return {"sni_hostname": self.cluster.server_name} if self.cluster.server_name else {}

    def path(self, kind: str, name: str = "", group: str = "") -> str:
        """The path of the namespace's objects of a kind (`pods`), or of one of them."""
        root = f"/apis/{group}" if group else "/api/v1"
        return f"{root}/namespaces/{self.cluster.namespace}/{kind}" + (f"/{name}" if name else "")

    async def authorization(self) -> dict[str, str]:
        """The header that identifies this server; none where its certificate does. Raises EngineUnavailable."""
        try:
            token = await anyio.to_thread.run_sync(self.cluster.token)
        except (OSError, UnicodeDecodeError) as error:
            raise EngineUnavailable(
                f"The token for the Kubernetes API at {self.cluster.server} cannot be read ({_why(error)}). The person "
                "who runs the server must look at the kubeconfig, or at the ServiceAccount of the server's pod."
            ) from error
        if not (token.isascii() and token.isprintable()):
            raise EngineError("The token for the Kubernetes API holds what no token does; look where it is from.")
        return {"Authorization": f"Bearer {token}"} if token else {}

    async def call(
        self, method: str, path: str, body: object = None, content: str = PLAIN_JSON, **query: str
    ) -> dict[str, Any]:
        """Return the answer's object. A busy server, or one that is away, is asked again for API_PATIENCE.

        One that does not know who asks is asked once more: what identifies this server may just have expired.
        """
        pause, end = FIRST_BACK_OFF, anyio.current_time() + (API_PATIENCE if self._has_answered else 0.0)
        is_renewed = False
        while True:
            after = 0.0
            try:
                found = await self._once(method, path, body, content, query)
            except ApiRefused as error:
                self._has_answered, after = True, error.after
                if error.status == _UNAUTHORIZED and not is_renewed:
                    is_renewed = True
                    self.cluster.renew()
                    continue
                if error.status not in _BUSY or anyio.current_time() + max(pause, after) > end:
                    raise
            except EngineUnavailable:
                if anyio.current_time() + pause > end:
                    raise
            else:
                self._has_answered = True
                return found
            own = pause * random.uniform(0.5, 1.5)  # noqa: S311 - so that servers do not ask in step
            await anyio.sleep(max(own, after))
            pause = min(2 * pause, LONGEST_BACK_OFF)

    async def _once(self, method: str, path: str, body: object, content: str, query: dict[str, str]) -> dict[str, Any]:
        headers = {"Content-Type": content, **await self.authorization()}
        data = None if body is None else json.dumps(body)
        try:
            with anyio.fail_after(API_TIMEOUT):
                request = self._http.stream(
                    method, path, params=query, content=data, headers=headers, extensions=self._named
                )
                async with request as answer:
                    found = _object_of(await _whole(answer))
        except (httpx2.TransportError, httpx2.DecodingError, TimeoutError) as error:
            raise EngineUnavailable(
                f"The Kubernetes API at {self.cluster.server} does not answer ({type(error).__name__}). The person who "
                "runs the server must look at the cluster; `taskcell doctor` says more."
            ) from error
        if found is None and not answer.is_client_error:
            raise EngineUnavailable(
                f"What answers at {self.cluster.server} is not the Kubernetes API (HTTP {answer.status_code}, "
                f"{answer.headers.get('content-type', 'no type')}): the page of a proxy, perhaps, or half an answer. "
                "The person who runs the server must look at what stands before the API."
            )
        if found is None or not answer.is_success:
            raise _refusal(method, path, answer.status_code, found or {}, _after(answer))
        return found

    async def watch(self, path: str, **query: str) -> AsyncGenerator[dict[str, Any]]:
        """Yield events until the server ends the watch; the object of each has metadata.

        Raises EngineUnavailable, ApiRefused (410: list again).
        """
        query = {**query, "watch": "true", "allowWatchBookmarks": "true", "timeoutSeconds": str(WATCH_FOR)}
        timeout = httpx2.Timeout(API_TIMEOUT, read=WATCH_FOR + API_TIMEOUT)
        headers = await self.authorization()
        try:
            async with self._http.stream(
                "GET", path, params=query, headers=headers, timeout=timeout, extensions=self._named
            ) as answer:
                if not answer.is_success:
                    said = _object_of(await _whole(answer)) or {}
                    if answer.status_code == _UNAUTHORIZED:
                        self.cluster.renew()
                    raise _refusal("GET", path, answer.status_code, said, _after(answer))
                async for line in _lines(answer):
                    event = _object_of(line) or {}
                    found = event.get("object")
                    if not isinstance(found, dict):
                        raise EngineUnavailable("The Kubernetes API sent what is not a watch's event.")
                    if event.get("type") == "ERROR":
                        code = found.get("code")
                        raise _refusal("GET", path, code if isinstance(code, int) else 0, found)
                    if isinstance(found.get("metadata"), dict):
                        yield event
        except (httpx2.TransportError, httpx2.DecodingError) as error:
            raise EngineUnavailable(f"The Kubernetes API ended a watch ({type(error).__name__}).") from error

    async def aclose(self) -> None:
        if "_http" in self.__dict__:
            await self._http.aclose()


def _why(error: OSError | UnicodeDecodeError) -> str:
    """Not what a token's file holds."""
    return str(error) if isinstance(error, OSError) else "it is not text"


async def _whole(answer: httpx2.Response) -> bytes:
    """The body of an answer. Raises EngineUnavailable: it has no end."""
    body = bytearray()
    async for piece in answer.aiter_bytes():
        body += piece
        if len(body) > ANSWER_MAX:
            raise EngineUnavailable("The Kubernetes API sent an answer without an end.")
    return bytes(body)


async def _lines(answer: httpx2.Response) -> AsyncGenerator[bytes]:
    """The lines of an answer. A line ends with a newline only: a text in JSON may have other ends of lines in it."""
    left = bytearray()
    async for piece in answer.aiter_bytes():
        *whole, last = piece.split(b"\n")
        for line in whole:
            yield bytes(left + line)
            left.clear()
        left += last
        if len(left) > WATCH_LINE_MAX:
            raise EngineUnavailable("The Kubernetes API sent a line without an end.")
    if left:
        raise EngineUnavailable("The Kubernetes API ended a watch in the midst of an event.")


def _object_of(body: bytes) -> dict[str, Any] | None:
    """The object that a text in JSON is; None for anything else."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _after(answer: httpx2.Response) -> float:
    """The seconds of Retry-After; a date is not used by API servers."""
    said = answer.headers.get("retry-after", "")
    return float(said) if said.isascii() and said.isdigit() else 0.0


def _refusal(method: str, path: str, status: int, said: dict[str, Any], after: float = 0.0) -> ApiRefused:
    message, reason = str(said.get("message", "")), str(said.get("reason", ""))
    message = message if len(message) <= _SAID else f"{message[:_SAID]}…"
    what = f"Kubernetes refused {method} {path} ({f'{status} {reason}'.strip()}): {message}"
    if status == 403 and " cannot " in message:  # as RBAC says it; admission has other words
        what += ". The server's account lacks this right; docs/engines.md has all that it needs."
    if "violates PodSecurity" in message or "PodSecurityPolicy" in message:
        what += (
            ". A supervisor is root with four capabilities, which Pod Security 'baseline' allows and 'restricted' does "
            "not: label the namespace pod-security.kubernetes.io/enforce=baseline."
        )
    return ApiRefused(what, status, reason, after)
