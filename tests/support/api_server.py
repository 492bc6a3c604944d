"""An API server as Kubernetes has it, over HTTP and in memory: objects, their versions, JSON Patch, lists and watches.

It knows no kinds' schemas: what is put below a path is kept as it is, if its names, labels and sizes are what a real
one takes (object_rules.py). No controller runs, so that a pod stays as it was made.
"""

from __future__ import annotations

import copy
import datetime
import socket
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import anyio
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from object_rules import faults, immutable_faults
from taskcell.engine.kubernetes.api import JSON_PATCH, Api
from taskcell.engine.kubernetes.kubeconfig import Cluster
from taskcell.http.listener import HttpListener

Object = dict[str, Any]


class Refusal(Exception):
    """What a real one answers with an object of the kind Status."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status, self.reason = status, reason

    @property
    def answer(self) -> Response:
        body = {"kind": "Status", "status": "Failure", "reason": self.reason, "message": str(self), "code": self.status}
        return JSONResponse(body, self.status)


class ApiServer:
    """Serves one namespace.

    Attributes:
        refusing: answers every request in the place of the server, while it is set.
        requests: how many of each method and collection have come; `WATCH` is a method of its own.
        oldest: the first version from which it can be watched.
    """

    def __init__(self) -> None:
        self.url = ""
        self.refusing: Refusal | None = None
        #: Clients that are cut off from it; each says its name as its token.
        self.cut_off: set[str] = set()
        #: What a client may not do, as in `delete leases`, if it asks for its rights.
        self.forbidden: set[str] = set()
        #: Methods and collections that fail, as in `requests`.
        self.failing: set[str] = set()
        #: The same: answered once the event is set.
        self.held: dict[str, anyio.Event] = {}
        #: How many of their next answers are lost: what was asked for is done, and the connection breaks.
        self.losing: Counter[str] = Counter()
        #: As `held`, but what was asked for is done before.
        self.stalling: dict[str, anyio.Event] = {}
        #: What is answered to their next requests in the place of the server.
        self.scripted: dict[str, list[Response]] = {}
        #: What becomes of a pod that is made, as by an admission webhook.
        self.admission: Callable[[Object], Object] = lambda body: body
        self.requests: Counter[str] = Counter()
        #: Of each list that was asked for, its labels.
        self.selectors: list[str] = []
        self._objects: dict[str, dict[str, Object]] = {}
        self._events: list[tuple[int, str, str, Object, Object | None]] = []
        self._version = 0
        self.oldest = 0
        self._until = anyio.Event()
        self._changed = anyio.Event()

    def api(self, name: str = "tests", namespace: str = "sandboxes") -> Api:
        """A client, as a server of taskcell has one."""
        return Api(lambda: Cluster(self.url, namespace, tls=False, token=lambda: name))  # type: ignore[arg-type]

    def all(self, kind: str) -> dict[str, Object]:
        """The objects whose collection's path ends so, by name."""
        return {
            name: one for path, found in self._objects.items() if path.endswith(kind) for name, one in found.items()
        }

    # --- requests ------------------------------------------------------------------------------------------------

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            is_review = request.url.path.endswith("/selfsubjectaccessreviews")
            answer = await (self._review(request) if is_review else self._answer(request))
        except Refusal as refusal:
            answer = refusal.answer
        await answer(scope, receive, send)

    async def _review(self, request: Request) -> Response:
        asked = (await request.json())["spec"]["resourceAttributes"]
        allowed = f"{asked['verb']} {asked['resource']}" not in self.forbidden
        return JSONResponse({"status": {"allowed": allowed}}, 201)

    async def _answer(self, request: Request) -> Response:
        if self.refusing is not None:
            raise self.refusing
        if request.headers.get("authorization", "").removeprefix("Bearer ") in self.cut_off:
            raise Refusal(401, "Unauthorized", "Unauthorized")
        collection, name = _parts(request.url.path)
        method = "WATCH" if request.query_params.get("watch") == "true" else request.method
        what = f"{method} {collection.rpartition('/')[2]}"
        self.requests[what] += 1
        if what in self.held:
            await self.held[what].wait()
        if what in self.failing:
            raise Refusal(500, "InternalError", "failing")
        if self.scripted.get(what):
            return self.scripted[what].pop(0)
        done = await self._done(request, collection, name)
        if what in self.stalling:
            await self.stalling[what].wait()
        if self.losing[what]:
            self.losing[what] -= 1
            return cut_off_answer()
        return done

    async def _done(self, request: Request, collection: str, name: str) -> Response:
        found = self._objects.setdefault(collection, {})
        body = await request.json() if await request.body() else None
        if request.method == "POST":
            return JSONResponse(self._create(collection, found, body), 201)
        if not name:
            return self._list(collection, found, request.query_params)
        if name not in found:
            raise Refusal(404, "NotFound", f'"{name}" not found')
        if request.method == "PATCH":
            if request.headers["content-type"] != JSON_PATCH:
                raise Refusal(415, "UnsupportedMediaType", "only JSON patches are known here")
            return JSONResponse(self._put(collection, found, name, _patched(found[name], body)))
        if request.method == "PUT":
            return JSONResponse(self._put(collection, found, name, body))
        if request.method == "DELETE":
            return JSONResponse(self._delete(collection, found, name, body or {}))
        return JSONResponse(found[name])

    def _create(self, collection: str, found: dict[str, Object], body: Object) -> Object:
        name = body["metadata"]["name"]
        if name in found:
            raise Refusal(409, "AlreadyExists", f'"{name}" already exists')
        made = copy.deepcopy(self.admission(copy.deepcopy(body)) if collection.endswith("/pods") else body)
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        made["metadata"] |= {"uid": str(uuid.uuid4()), "creationTimestamp": now}
        _hold(faults(made))
        return self._changed_to(collection, found, "ADDED", made)

    def _put(self, collection: str, found: dict[str, Object], name: str, body: Object) -> Object:
        now = found[name]["metadata"]
        if body["metadata"].get("resourceVersion", now["resourceVersion"]) != now["resourceVersion"]:
            raise Refusal(409, "Conflict", "the object has been modified")
        if body["metadata"].get("uid", now["uid"]) != now["uid"]:
            raise Refusal(409, "Conflict", "the UID is another one's")
        made = copy.deepcopy(body)
        made["metadata"] |= {key: now[key] for key in ("uid", "creationTimestamp", "name")}
        _hold(faults(made))
        _hold(immutable_faults(found[name], made, collection.rpartition("/")[2]))
        return self._changed_to(collection, found, "MODIFIED", made)

    def _delete(self, collection: str, found: dict[str, Object], name: str, options: Object) -> Object:
        now = found[name]["metadata"]
        for key, value in options.get("preconditions", {}).items():
            if now[key] != value:
                raise Refusal(409, "Conflict", f"the precondition on {key} does not hold")
        gone = self._changed_to(collection, found, "DELETED", copy.deepcopy(found[name]))
        del found[name]
        return gone

    def _changed_to(self, collection: str, found: dict[str, Object], event: str, made: Object) -> Object:
        self._version += 1
        made["metadata"]["resourceVersion"] = str(self._version)
        before = found.get(made["metadata"]["name"])
        found[made["metadata"]["name"]] = made
        self._events.append((self._version, collection, event, copy.deepcopy(made), before))
        change, self._changed = self._changed, anyio.Event()
        change.set()
        return made

    def end_watches(self, *, forget: bool = False) -> None:
        """End every watch that is under way; `forget`: what was before cannot be watched any more."""
        self._until.set()
        self._until = anyio.Event()
        self._changed.set()
        self._changed = anyio.Event()
        self.oldest = self._version if forget else self.oldest

    # --- lists and watches ---------------------------------------------------------------------------------------

    def _list(self, collection: str, found: Mapping[str, Object], query: Mapping[str, str]) -> Response:
        if query.get("watch") == "true":
            if int(query.get("resourceVersion") or self._version) < self.oldest:
                raise Refusal(410, "Expired", "too old resource version")
            events = self._watched(collection, query, int(query.get("resourceVersion") or self._version))
            return StreamingResponse(events, media_type="application/json")
        self.selectors.append(query.get("labelSelector", ""))
        items = [one for one in found.values() if _is_selected(one, query)]
        return JSONResponse({"kind": "List", "metadata": {"resourceVersion": str(self._version)}, "items": items})

    async def _watched(self, collection: str, query: Mapping[str, str], since: int) -> AsyncIterator[bytes]:
        until = self._until
        while not until.is_set():
            change = self._changed
            for version, where, event, one, before in self._events:
                if version <= since or where != collection:
                    continue
                was_selected = before is not None and _is_selected(before, query)
                if _is_selected(one, query):
                    said = event if was_selected or event != "MODIFIED" else "ADDED"
                    yield JSONResponse({"type": said, "object": one}).body + b"\n"
                elif was_selected and before is not None:  # as it was, in the new version
                    gone = before | {"metadata": before["metadata"] | {"resourceVersion": str(version)}}
                    yield JSONResponse({"type": "DELETED", "object": gone}).body + b"\n"
            since = self._version
            await change.wait()


def cut_off_answer() -> Response:
    """An answer whose connection breaks after its first byte."""
    return Response(b"{", headers={"content-length": "99", "content-type": "application/json"})


@asynccontextmanager
async def api_server() -> AsyncIterator[ApiServer]:
    """One that listens on loopback while this is entered."""
    server = ApiServer()
    listener = HttpListener(server)
    # By its protocol asyncio knows that it is not to wait for more to send.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listening:
        listening.bind(("127.0.0.1", 0))
        server.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        async with anyio.create_task_group() as serving:
            serving.start_soon(listener.serve, [listening])
            try:
                yield server
            finally:
                listener.stop()


def _hold(found: Iterator[str]) -> None:
    if why := "; ".join(found):
        raise Refusal(422, "Invalid", why)


def _parts(path: str) -> tuple[str, str]:
    """`…/namespaces/NAMESPACE/KIND` of a path, and the name after it, if there is one."""
    parts = path.split("/")
    end = parts.index("namespaces") + 3
    return "/".join(parts[:end]), "/".join(parts[end:])


def _is_selected(one: Object, query: Mapping[str, str]) -> bool:
    labels, name = one["metadata"].get("labels", {}), one["metadata"]["name"]
    wanted = [term.partition("=") for term in query.get("labelSelector", "").split(",") if term]
    named = query.get("fieldSelector", "").removeprefix("metadata.name=")
    return all(labels.get(key) == value for key, _, value in wanted) and named in ("", name)


def _patched(one: Object, operations: list[Object]) -> Object:
    """RFC 6902, as far as it is used on objects. Whatever does not fit leaves everything as it was."""
    made = copy.deepcopy(one)
    for operation in operations:
        *above, last = (part.replace("~1", "/").replace("~0", "~") for part in operation["path"].split("/")[1:])
        at: Any = made
        for part in above:
            at = at.get(part) if isinstance(at, dict) else None
        what = operation["op"]
        is_there = isinstance(at, dict) and last in at
        if not isinstance(at, dict) or (what != "add" and not is_there):
            raise Refusal(422, "Invalid", f"there is nothing at {operation['path']}")
        if what == "test" and at[last] != operation["value"]:
            raise Refusal(422, "Invalid", f"the test of {operation['path']} failed")
        if what in ("add", "replace"):
            at[last] = operation["value"]
        elif what == "remove":
            del at[last]
    return made
