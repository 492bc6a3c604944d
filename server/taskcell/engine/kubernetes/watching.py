"""One watch for all pods of a server, in the place of one for each pod that starts and of looks again and again."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import aclosing, suppress
from typing import Any

import anyio
import structlog

from taskcell.engine.kubernetes import pod, status
from taskcell.engine.kubernetes.api import FIRST_BACK_OFF, LONGEST_BACK_OFF, Api, ApiRefused
from taskcell.errors import EngineError

log = structlog.get_logger(__name__)

#: Seconds without news of a pod that starts after which it is looked at: the watch may hang.
NEWS_WITHIN = 5.0

#: Seconds between two looks at a pod whose watch ends at once.
ALONE_PAUSE = 0.25
#: Events that say how a pod is; later versions may have others.
_NEWS = frozenset({"ADDED", "MODIFIED"})

Pod = dict[str, Any]


class PodWatch:
    """What the API server has said about the pods of one server. Raises EngineError, EngineUnavailable."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._seen: dict[str, Pod] = {}
        self._news: dict[str, anyio.Event] = {}
        self._selector = ""
        self._version = ""
        self._is_on = False

    @property
    def seen(self) -> list[Pod]:
        """The pods that there are, as far as the watch has said."""
        return list(self._seen.values())

    # --- who waits for a pod -------------------------------------------------------------------------------------

    async def next(self, found: Pod) -> Pod:
        """A pod as it is after `found`, or again after NEWS_WITHIN. Raises ApiRefused: it is gone."""
        name = found["metadata"]["name"]
        if self._is_on and self._holds(found):
            newest = self._seen.get(name)
            if newest is None or _version_of(newest) == _version_of(found):
                with anyio.move_on_after(NEWS_WITHIN):
                    await self._news.setdefault(name, anyio.Event()).wait()
                    newest = self._seen.get(name)
                    return newest or await self._look(name)
            else:
                return newest
            return await self._look(name)
        return await self._alone(found)

    def _holds(self, found: Pod) -> bool:
        return self._selector == _selector_of(status.owner_of(found))

    async def _look(self, name: str) -> Pod:
        return status.as_pod(await self._api.call("GET", self._api.path("pods", name)))

    async def _alone(self, found: Pod) -> Pod:
        """The same by a watch of its own: this server's is not on, as in a command line."""
        name = found["metadata"]["name"]
        query = {"fieldSelector": f"metadata.name={name}", "resourceVersion": _version_of(found)}
        with anyio.move_on_after(NEWS_WITHIN), suppress(EngineError):  # too old, busy or away: the look says more
            async with aclosing(self._api.watch(self._api.path("pods"), **query)) as events:
                async for event in events:
                    if event.get("type") in _NEWS and status.is_whole(event["object"]):
                        return status.as_pod(event["object"])
            await anyio.sleep(ALONE_PAUSE)
        return await self._look(name)

    # --- the watch -----------------------------------------------------------------------------------------------

    async def run(self, instance: str, ended: Callable[[str], None]) -> None:
        """Watch a server's pods until cancelled, and say which containers have ended.

        A watch that ends is begun again where it was; the pods are listed where that is too long ago (410). An API
        server that is busy or away is asked less and less often.

        Arguments:
            instance: the server, as in the pods' label.
            ended: called with an engine's id for each; it must not wait.
        """
        self._selector, pause = _selector_of(instance), FIRST_BACK_OFF
        try:
            while True:
                begun = anyio.current_time()
                try:
                    await self._follow(ended)
                except ApiRefused as refused:
                    self._version = ""
                    log.info("The pods are listed again.", reason=str(refused))
                except EngineError as error:
                    log.info("The watch of the pods is begun again.", reason=str(error))
                self._off()
                if anyio.current_time() - begun > LONGEST_BACK_OFF:
                    pause = FIRST_BACK_OFF
                await anyio.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311 - servers must not ask in step
                pause = min(2 * pause, LONGEST_BACK_OFF)
        finally:
            self._off()
            self._selector = ""

    def _off(self) -> None:
        self._is_on = False
        self._tell(*self._news)

    async def _follow(self, ended: Callable[[str], None]) -> None:
        """Watch once, to the end of the watch."""
        path = self._api.path("pods")
        if not self._version:
            found = await self._api.call("GET", path, labelSelector=self._selector)
            items = status.items_of(found)
            gone = self._seen.keys() - {one["metadata"]["name"] for one in items}
            for name in gone:
                self._lose(self._seen[name], ended)
            for one in items:
                self._see(one, ended)
            self._version = _version_of(found)
        self._is_on = True
        query = {"labelSelector": self._selector, "resourceVersion": self._version}
        async for event in self._api.watch(path, **query):
            one = event["object"]
            self._version = _version_of(one)
            if event.get("type") == "DELETED" and status.is_whole(one):
                self._lose(one, ended)
            elif event.get("type") in _NEWS and status.is_whole(one):
                self._see(one, ended)

    def _see(self, one: Pod, ended: Callable[[str], None]) -> None:
        self._seen[one["metadata"]["name"]] = status.as_pod(one)
        for container in status.ended_in(one):
            ended(container)
        self._tell(one["metadata"]["name"])

    def _lose(self, one: Pod, ended: Callable[[str], None]) -> None:
        """A pod is gone, or another server's."""
        self._seen.pop(one["metadata"]["name"], None)
        for container in status.all_in(status.as_pod(one)) if self._holds(one) else ():
            ended(container)
        self._tell(one["metadata"]["name"])

    def _tell(self, *names: str) -> None:
        for name in names:
            if (news := self._news.pop(name, None)) is not None:
                news.set()


def _selector_of(instance: str) -> str:
    return f"{pod.LABEL_PREFIX}instance={instance}"


def _version_of(found: Pod) -> str:
    return str(found["metadata"].get("resourceVersion", ""))
