"""Whatever an API server, or what stands before it, answers: a request is made again, or is an error in a sentence."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
import pytest
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response

from api_server import ApiServer, api_server, cut_off_answer
from observe import HOST_TIMEOUT
from taskcell.engine.kubernetes import api as api_module
from taskcell.engine.kubernetes import pod, status
from taskcell.engine.kubernetes.api import Api, ApiRefused
from taskcell.engine.kubernetes.kubeconfig import Cluster
from taskcell.engine.kubernetes.pods import CHANGE_ATTEMPTS, Pods
from taskcell.engine.kubernetes.watching import ALONE_PAUSE
from taskcell.errors import EngineError, EngineUnavailable, Taken

pytestmark = pytest.mark.anyio

CELL, NAME = "c", pod.LABEL_PREFIX + "name"
Pod = dict[str, Any]


class Asked:
    """A server that has answered once, and a client of it."""

    def __init__(self, server: ApiServer, api: Api) -> None:
        self.server, self.api, self.pods = server, api, Pods(api)

    def says(self, what: str, *answers: Response) -> None:
        self.server.scripted[what] = list(answers)

    async def get(self) -> Pod:
        return await self.api.call("GET", self.api.path("pods"))

    async def pod(self, cells: str = "") -> Pod:
        labels = {pod.LABEL_PREFIX + "instance": "one"}
        meta = {"name": "a", "labels": labels, "annotations": {NAME: "", pod.CELLS: cells}}
        body = {"metadata": meta, "spec": {"containers": [{"name": CELL}]}, "status": {"phase": "Running"}}
        return await self.api.call("POST", self.api.path("pods"), body)

    def cells(self) -> str:
        return str(self.server.all("pods")["a"]["metadata"]["annotations"][pod.CELLS])


@pytest.fixture
async def asked() -> AsyncIterator[Asked]:
    async with api_server() as server:
        api = server.api()
        made = Asked(server, api)
        with anyio.fail_after(HOST_TIMEOUT):
            await made.get()
            yield made
        await api.aclose()


def busy(code: int = 429, after: str = "") -> Response:
    """As the API server's own bound says it, in plain text."""
    headers = {"retry-after": after} if after else {}
    return PlainTextResponse("Too many requests, please try again later.", code, headers)


@pytest.mark.parametrize(
    "answer",
    [
        busy,
        lambda: busy(after="0"),
        lambda: busy(after="Wed, 21 Oct 2026 07:28:00 GMT"),
        lambda: busy(503),
        lambda: HTMLResponse("<h1>Bad Gateway</h1>", 502),
        cut_off_answer,
        lambda: Response(b'{"items": [', media_type="application/json"),
        lambda: HTMLResponse("<form>Log in</form>"),
        lambda: JSONResponse({"kind": "Status", "code": 401, "reason": "Unauthorized", "message": "Unauthorized"}, 401),
    ],
    ids=["429", "after no second", "after a date", "503", "502", "cut", "half", "a login page once", "401 once"],
)
async def test_what_passes_is_asked_for_again(asked: Asked, answer: Callable[[], Response]) -> None:
    asked.says("GET pods", answer())
    assert (await asked.get())["items"] == []


@pytest.mark.parametrize(("said", "after"), [("3", 3.0), ("", 0.0), ("-1", 0.0), ("soon", 0.0), ("²", 0.0)])
async def test_when_to_ask_again_is_what_the_server_says(said: str, after: float) -> None:
    async with api_server() as server:
        api = server.api()  # one that never answered is not asked again
        server.scripted["GET pods"] = [busy(after=said)]
        with pytest.raises(ApiRefused) as refused:
            await api.call("GET", api.path("pods"))
        assert refused.value.after == after
        await api.aclose()


async def test_a_token_that_was_refused_is_fetched_anew_once(asked: Asked) -> None:
    tokens, renewed = ["old", "new", "newer"], []
    cluster = Cluster(
        asked.server.url,
        "sandboxes",
        tls=False,  # type: ignore[arg-type]
        token=lambda: tokens[0],
        renew=lambda: renewed.append(tokens.pop(0)),
    )
    api = Api(lambda: cluster)
    asked.server.cut_off.add("old")
    assert (await api.call("GET", api.path("pods")))["items"] == []
    assert renewed == ["old"]
    asked.server.cut_off |= {"new", "newer"}
    with pytest.raises(ApiRefused, match="401 Unauthorized"):
        await api.call("GET", api.path("pods"))
    assert renewed == ["old", "new"]
    await api.aclose()


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (HTMLResponse("<form>Log in</form>"), r"is not the Kubernetes API \(HTTP 200, text/html"),
        (RedirectResponse("https://login.test/?secret=1", 302), r"is not the Kubernetes API \(HTTP 302, no type\)"),
        (JSONResponse(["a"]), r"is not the Kubernetes API \(HTTP 200, application/json\)"),
        (Response(b"[" * 100_000, media_type="application/json"), r"is not the Kubernetes API"),
        (Response(b"\xff\xfe"), r"is not the Kubernetes API"),
        (HTMLResponse("<h1>no secret</h1>", 403), r"Kubernetes refused GET .*\(403\)"),
        (JSONResponse({"message": {"a": 1}, "reason": None}, 409), r"Kubernetes refused GET .*409"),
    ],
    ids=["a login page", "a redirect", "a list", "too deep", "no text", "a page with 403", "a strange status"],
)
async def test_what_is_not_the_api_is_one_sentence(answer: Response, why: str) -> None:
    async with api_server() as server:
        api = server.api()
        server.scripted["GET pods"] = [answer]
        with pytest.raises(EngineError, match=why) as caught:
            await api.call("GET", api.path("pods"))
        assert "secret" not in str(caught.value)
        await api.aclose()


async def test_an_answer_without_an_end_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_module, "ANSWER_MAX", 1000)
    async with api_server() as server:
        api = server.api()
        server.scripted["GET pods"] = [JSONResponse({"items": ["x" * 2000]})]
        with pytest.raises(EngineUnavailable, match="without an end"):
            await api.call("GET", api.path("pods"))
        await api.aclose()


# --- watches ---------------------------------------------------------------------------------------------------------


def event(kind: str, **meta: Any) -> bytes:
    found = {"metadata": {"name": "a", "uid": "u", "resourceVersion": "7"} | meta}
    return json.dumps({"type": kind, "object": found}, ensure_ascii=False).encode() + b"\n"


async def events(asked: Asked, body: bytes) -> list[str]:
    asked.says("WATCH pods", Response(body, media_type="application/json"))
    return [one["type"] async for one in asked.api.watch(asked.api.path("pods"))]


async def test_lines_end_with_a_newline_and_nothing_else(asked: Asked) -> None:
    odd = event("ADDED", annotations={"a": "\x85 \u2028 \x1c \x0b"})
    assert await events(asked, odd + event("BOOKMARK") + event("LATER")) == ["ADDED", "BOOKMARK", "LATER"]
    large = event("ADDED", annotations={"a": "x" * (10 << 20)})
    assert await events(asked, large + event("DELETED")) == ["ADDED", "DELETED"]


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (event("ADDED")[:-5], "in the midst of an event"),
        (b"<html>\n", "not a watch's event"),
        (b"[]\n", "not a watch's event"),
        (b"{}\n", "not a watch's event"),
        (b'{"type": "ADDED", "object": 3}\n', "not a watch's event"),
        (b'{"type": "ERROR", "object": {"code": 410, "reason": "Expired"}}\n', "410 Expired"),
        (b'{"type": "ERROR", "object": {"code": "x"}}\n', "refused"),
        (b'{"type": "ERROR", "object": {}}\n', "refused"),
    ],
)
async def test_what_is_not_an_event_ends_a_watch_in_a_sentence(asked: Asked, body: bytes, why: str) -> None:
    with pytest.raises(EngineError, match=why):
        await events(asked, body)


async def test_a_line_without_an_end_is_bounded(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_module, "WATCH_LINE_MAX", 1000)
    with pytest.raises(EngineUnavailable, match="a line without an end"):
        await events(asked, b"x" * 5000)


async def test_objects_that_lack_what_all_have_are_left_out_of_a_watch(asked: Asked) -> None:
    odd = b'{"type": "ADDED", "object": {}}\n{"type": "ADDED", "object": {"metadata": {"name": "x"}}}\n'
    watch = asked.pods.watch
    body = odd + event("ADDED") + event("LATER", name="b") + event("BOOKMARK", name="c")
    asked.says("WATCH pods", Response(body, media_type="application/json"))
    async with anyio.create_task_group() as group:
        group.start_soon(watch.run, "one", lambda _: None)
        while not watch.seen:
            await anyio.sleep(0.01)
        assert [one["metadata"]["name"] for one in watch.seen] == ["a"]
        group.cancel_scope.cancel()


async def test_a_watch_that_ends_at_once_each_time_is_not_begun_without_a_pause(asked: Asked) -> None:
    await asked.pod()
    asked.says("WATCH pods", *(Response(b"", media_type="application/json") for _ in range(100)))
    with anyio.move_on_after(3 * ALONE_PAUSE):
        await asked.pods.until_running("a", CELL)
    assert asked.server.requests["WATCH pods"] <= 4


# --- odd pods --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("found", [{}, {"metadata": {}}, {"metadata": {"name": "a"}}, {"metadata": None}])
async def test_a_pod_without_a_uid_is_one_sentence(asked: Asked, found: Pod) -> None:
    asked.says("GET pods", JSONResponse(found))
    with pytest.raises(EngineUnavailable, match="no name or no uid"):
        await asked.pods.look("a/u")


@pytest.mark.parametrize(
    "says",
    [
        {},
        {"phase": "Hibernating"},
        {"phase": "Running", "initContainerStatuses": [{"name": "s", "started": True, "state": {"running": {}}}]},
        {"phase": "Running", "resize": "InProgress", "containerStatuses": [{"name": CELL, "allocatedResources": {}}]},
        {"phase": "Running", "containerStatuses": [{"name": CELL, "state": {"novel": {}}}]},
    ],
    ids=["none", "unknown phase", "native sidecar", "resize", "unknown state"],
)
def test_statuses_of_other_versions_are_understood(says: Pod) -> None:
    meta = {"name": "a", "uid": "u", "creationTimestamp": "2026-01-01T00:00:00Z", "annotations": {pod.CELLS: CELL}}
    found = status.as_pod({"metadata": meta, "status": says})
    assert not status.has_started(found, CELL)
    assert status.runs(found)
    assert list(status.ended_in(found)) == []
    assert [one.id for one in status.listed(found)] == [f"a/u/{CELL}/0"]
    assert status.why_ended(found, CELL).startswith("Its pod is")


# --- lost answers ----------------------------------------------------------------------------------------------------


async def test_a_pod_whose_answer_was_lost_is_not_made_twice(asked: Asked) -> None:
    asked.server.losing["POST configmaps"] = 1
    await asked.pods.have_supervisor("amd64")
    asked.server.losing["DELETE pods"] = 1
    found = await asked.pod()
    await asked.pods.delete("a", found["metadata"]["uid"], 1)
    assert not asked.server.all("pods")


async def test_a_claim_whose_answer_was_lost_is_this_servers_and_nobody_elses(asked: Asked) -> None:
    found = await asked.pod()
    asked.server.losing["PATCH pods"] = 1
    assert await asked.pods.claim(found, CELL)
    assert asked.cells() == CELL
    assert not await asked.pods.claim(found, CELL)
    asked.server.losing["PATCH pods"] = 1
    await asked.pods.release(await asked.pods.look(status.volume_of(found)) or {}, CELL)
    assert asked.cells() == ""
    asked.server.losing["PATCH pods"] = 1
    await asked.pods.spoil(await asked.pods.look(status.volume_of(found)) or {}, CELL)
    assert await asked.pods.claim(found, CELL)


async def test_of_claims_whose_answers_are_lost_one_wins(asked: Asked) -> None:
    found = await asked.pod()
    asked.server.losing["PATCH pods"] = 4
    won: list[bool] = []

    async def claim() -> None:
        won.append(await asked.pods.claim(found, CELL))

    async with anyio.create_task_group() as racing:
        for _ in range(4):
            racing.start_soon(claim)
    assert sorted(won) == [False, False, False, True]
    assert asked.cells() == CELL


async def test_a_claim_that_was_given_up_on_its_way_leaves_nothing_taken(asked: Asked) -> None:
    found = await asked.pod()
    patched = asked.server.requests["PATCH pods"]
    asked.server.stalling["PATCH pods"] = anyio.Event()
    async with anyio.create_task_group() as group:
        group.start_soon(asked.pods.claim, found, CELL)
        while asked.cells() != CELL:
            await anyio.sleep(0.01)
        del asked.server.stalling["PATCH pods"]
        group.cancel_scope.cancel()
    assert asked.cells() == ""
    assert asked.server.requests["PATCH pods"] == patched + 2


async def test_a_ready_pod_whose_answer_was_lost_is_its_tasks(asked: Asked) -> None:
    found = await asked.pod(CELL)
    at = f"{status.volume_of(found)}/{CELL}/0"
    asked.server.losing["PATCH pods"] = 1
    await asked.pods.assign(at, "taskcell-1", "one")
    with pytest.raises(Taken):
        await asked.pods.assign(at, "taskcell-2", "one")
    assert asked.server.all("pods")["a"]["metadata"]["annotations"][NAME] == "taskcell-1"


async def test_a_change_that_is_refused_each_time_ends_in_a_sentence(asked: Asked) -> None:
    found = await asked.pod()
    refusals = [JSONResponse({"kind": "Status", "reason": "Invalid", "message": "no"}, 422)] * CHANGE_ATTEMPTS
    asked.says("PATCH pods", *refusals)
    with pytest.raises(EngineError, match="changed by others again and again"):
        await asked.pods.claim(found, CELL)
