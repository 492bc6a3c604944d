"""Calls to one API server in one namespace, over HTTP."""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator, Callable
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
_BUSY = frozenset({429, 503})
#: Characters of the API server's own words in an error.
_SAID = 400

PLAIN_JSON, JSON_PATCH = "application/json", "application/json-patch+json"


class ApiRefused(EngineError):
    """The API server refused a request; `status` is HTTP's, `reason` Kubernetes' own word."""

    def __init__(self, message: str, status: int, reason: str) -> None:
        super().__init__(message)
        self.status, self.reason = status, reason

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
        return httpx2.AsyncClient(base_url=cluster.server, verify=cluster.tls, timeout=API_TIMEOUT, limits=limits)

    def path(self, kind: str, name: str = "", group: str = "") -> str:
        """The path of the namespace's objects of a kind (`pods`), or of one of them."""
        root = f"/apis/{group}" if group else "/api/v1"
        return f"{root}/namespaces/{self.cluster.namespace}/{kind}" + (f"/{name}" if name else "")

    async def authorization(self) -> dict[str, str]:
        """The header that identifies this server; none where its certificate does. Raises EngineUnavailable."""
        try:
            token = await anyio.to_thread.run_sync(self.cluster.token)
        except OSError as error:
            raise EngineUnavailable(
                f"The token for the Kubernetes API at {self.cluster.server} cannot be read ({error}). The person who "
                "runs the server must look at the kubeconfig, or at the ServiceAccount of the server's pod."
            ) from error
        return {"Authorization": f"Bearer {token}"} if token else {}

    async def call(
        self, method: str, path: str, body: object = None, content: str = PLAIN_JSON, **query: str
    ) -> dict[str, Any]:
        """Return the answer's object. A busy server, or one that is away, is asked again for API_PATIENCE."""
        pause, end = FIRST_BACK_OFF, anyio.current_time() + (API_PATIENCE if self._has_answered else 0.0)
        while True:
            try:
                found = await self._once(method, path, body, content, query)
            except (ApiRefused, EngineUnavailable) as error:
                refused = isinstance(error, ApiRefused) and error.status not in _BUSY
                self._has_answered |= isinstance(error, ApiRefused)
                if refused or anyio.current_time() + pause > end:
                    raise
            else:
                self._has_answered = True
                return found
            await anyio.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311 - so that servers do not ask in step
            pause = min(2 * pause, LONGEST_BACK_OFF)

    async def _once(self, method: str, path: str, body: object, content: str, query: dict[str, str]) -> dict[str, Any]:
        headers = {"Content-Type": content, **await self.authorization()}
        data = None if body is None else json.dumps(body)
        try:
            answer = await self._http.request(method, path, params=query, content=data, headers=headers)
            found = answer.json()
        except (httpx2.TransportError, ValueError) as error:
            raise EngineUnavailable(
                f"The Kubernetes API at {self.cluster.server} does not answer ({type(error).__name__}). The person who "
                "runs the server must look at the cluster; `taskcell doctor` says more."
            ) from error
        if not isinstance(found, dict) or not answer.is_success:
            said = found if isinstance(found, dict) else {}
            raise _refusal(method, path, answer.status_code, said)
        return found

    async def watch(self, path: str, **query: str) -> AsyncIterator[dict[str, Any]]:
        """Yield events until the server ends the watch. Raises EngineUnavailable, ApiRefused (410: list again)."""
        query = {**query, "watch": "true", "allowWatchBookmarks": "true", "timeoutSeconds": str(WATCH_FOR)}
        timeout = httpx2.Timeout(API_TIMEOUT, read=WATCH_FOR + API_TIMEOUT)
        headers = await self.authorization()
        try:
            async with self._http.stream("GET", path, params=query, headers=headers, timeout=timeout) as answer:
                if not answer.is_success:
                    await answer.aread()
                    raise _refusal("GET", path, answer.status_code, answer.json())
                async for line in answer.aiter_lines():
                    event = json.loads(line)
                    if event.get("type") == "ERROR":
                        raise _refusal("GET", path, int(event["object"].get("code", 0)), event["object"])
                    yield event
        except (httpx2.TransportError, ValueError) as error:
            raise EngineUnavailable(f"The Kubernetes API ended a watch ({type(error).__name__}).") from error

    async def aclose(self) -> None:
        if "_http" in self.__dict__:
            await self._http.aclose()


def _refusal(method: str, path: str, status: int, said: dict[str, Any]) -> ApiRefused:
    message, reason = str(said.get("message", ""))[:_SAID], str(said.get("reason", ""))
    what = f"Kubernetes refused {method} {path} ({status} {reason}): {message}"
    if status == 403 and " cannot " in message:  # as RBAC says it; admission has other words
        what += " The server's account lacks this right; docs/engines.md has all that it needs."
    if "violates PodSecurity" in message or "PodSecurityPolicy" in message:
        what += (
            " A supervisor is root with four capabilities, which Pod Security 'baseline' allows and 'restricted' does "
            "not: label the namespace pod-security.kubernetes.io/enforce=baseline."
        )
    return ApiRefused(what, status, reason)
