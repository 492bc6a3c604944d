"""The shipped skills as a model calls them, on the real engine; their images are built where they are missing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from skill_task import MANIFESTS, Task


@pytest.fixture
async def task(skill_images_built: None, gateway: Any) -> AsyncIterator[Task]:
    """A new task with the shipped skills."""
    async with gateway(toml=f'manifests = ["{MANIFESTS}"]') as made:
        yield Task(made)
