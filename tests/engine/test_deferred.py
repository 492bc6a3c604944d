"""An engine that is made at its first use: once, and every method reaches it."""

from __future__ import annotations

import inspect

import anyio
import pytest

from taskcell.config.settings import EngineSettings
from taskcell.engine.base import Engine
from taskcell.engine.deferred import deferred
from taskcell.engine.docker.calls import Calls
from taskcell.engine.docker.engine import DockerEngine
from taskcell.engine.kinds import kind_of
from taskcell.errors import EngineError, EngineUnavailable
from taskcell.images.engine import ImageEngine

pytestmark = pytest.mark.anyio

#: Nothing listens there.
AWAY = "tcp://127.0.0.1:1"


class Making:
    """Makes real engines that are away, and counts them."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> Engine:
        self.count += 1
        return DockerEngine(Calls(AWAY, {}))


async def test_it_is_made_once_however_many_ask_at_once() -> None:
    making = Making()
    engine = deferred(making)
    assert engine.images is not None
    assert making.count == 0
    said: list[str] = []

    async def ask() -> None:
        with pytest.raises(EngineUnavailable) as error:
            await engine.facts()
        said.append(str(error.value))

    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(ask)
    assert making.count == 1
    assert len(said) == 5
    assert all(AWAY in sentence for sentence in said)
    await engine.aclose()


async def test_its_images_are_those_of_the_engine_and_no_engine_is_made_to_be_closed() -> None:
    making = Making()
    engine = deferred(making)
    await engine.aclose()
    assert making.count == 0
    assert engine.images is not None
    with pytest.raises(EngineUnavailable, match="No container engine answers"):
        await engine.images.image_labels("taskcell/base:latest")
    assert making.count == 1


async def test_one_without_images_has_none_before_it_is_made() -> None:
    settings = EngineSettings(kind="kubernetes", host="/nowhere/kubeconfig")
    engine = kind_of(settings).make(settings, {})
    assert engine.images is None
    with pytest.raises(EngineError, match="/nowhere/kubeconfig"):
        await engine.facts()


async def test_an_engine_that_could_not_be_made_is_made_at_the_next_use() -> None:
    making = Making()

    def fails_first() -> Engine:
        made = making()
        if making.count == 1:
            raise OSError("too many open files")
        return made

    engine = deferred(fails_first)
    with pytest.raises(OSError, match="too many"):
        await engine.facts()
    with pytest.raises(EngineUnavailable):
        await engine.facts()


def test_every_method_of_an_engine_can_be_passed_on() -> None:
    """All are awaited; what is not is written out in the deferred engine."""
    written_out = {"images", "connect", "frozen"}
    for protocol in (Engine, ImageEngine):
        public = {name: found for name, found in vars(protocol).items() if not name.startswith("_")}
        assert public
        plain = {name for name, found in public.items() if not inspect.iscoroutinefunction(found)}
        assert plain <= written_out
