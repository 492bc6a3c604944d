"""Every test here attacks, so that it runs on an engine of its own only: `make test-hostile`."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from figures import Figure


@pytest.fixture
def figure(record_property: Callable[[str, object], None]) -> Figure:
    return lambda text: record_property("figure", text)
