"""The type of the fixture `figure` of tests/hostile."""

from __future__ import annotations

from collections.abc import Callable

#: Called with what a test has measured, for the suite's table.
Figure = Callable[[str], None]
