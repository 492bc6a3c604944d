"""Fixtures for tests of the real supervisor, without a container."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from supervisor_driver import Client, Supervisor

ROOT = Path(__file__).resolve().parents[2]


def load_build() -> ModuleType:
    """`server/supervisor/build.py`, which is no part of the package."""
    spec = importlib.util.spec_from_file_location("supervisor_build", ROOT / "server" / "supervisor" / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def build() -> ModuleType:
    return load_build()


@pytest.fixture(scope="session")
def binary(build: ModuleType) -> Path:
    """The program under test: `TASKCELL_SUPERVISOR_BINARY` names another one, such as a sanitized build."""
    named = os.environ.get("TASKCELL_SUPERVISOR_BINARY")
    if named:
        return Path(named).resolve()
    name = build.own_architecture()
    path: Path = build.build([name])[name]
    return path


@pytest.fixture
def supervisor(binary: Path, tmp_path: Path) -> Iterator[Supervisor]:
    running = Supervisor(binary, tmp_path / "run")
    yield running
    running.stop()


@pytest.fixture
def client(supervisor: Supervisor) -> Iterator[Client]:
    with supervisor.claim() as client:
        yield client
