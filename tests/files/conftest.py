"""A folder with the file tools on it."""

from __future__ import annotations

from pathlib import Path

import pytest

from file_driver import Files
from taskcell.supervisor import binary


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(binary.path(), tmp_path / "work")
