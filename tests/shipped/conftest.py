"""The shipped skills as a model calls them, on the real engine; their images are built where they are missing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from skill_task import MANIFESTS, Task
from taskcell.engine.docker.engine import DockerEngine
from taskcell.images import skills as skill_images


@pytest.fixture(scope="session")
def skill_images_built() -> None:
    """Every skill's image, built first where it is missing or outdated: two minutes on a machine without any."""

    async def build() -> None:
        engine = await DockerEngine.open("", {})
        try:
            await skill_images.build(engine.images, tuple(skill_images.CATALOG.values()), report=print)
        finally:
            await engine.aclose()

    anyio.run(build)


@pytest.fixture
async def task(skill_images_built: None, gateway: Any) -> AsyncIterator[Task]:
    """A new task with the shipped skills."""
    async with gateway(toml=f'manifests = ["{MANIFESTS}"]') as made:
        yield Task(made)
