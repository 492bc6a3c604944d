"""An engine costs a folder and an entry in KINDS: one that is added so is configured, checked and used like the others.

The engine of these tests is a temporary module. It shares no class with another engine, and has the local engine start
its supervisors, so that only its entry in KINDS says what it is.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import anyio
import pytest

from taskcell.assembly import stack
from taskcell.assembly.gateway import configured_gateway
from taskcell.assembly.invocation import Invocation
from taskcell.cli.app import run
from taskcell.engine.kinds import KINDS, EngineKind
from taskcell.errors import ConfigError
from taskcell.model import ToolCall

pytestmark = pytest.mark.anyio

MODULE = '''
from taskcell.engine.base import EngineFacts
from taskcell.engine.local import LocalEngine

started = []


class Elsewhere:
    """Starts supervisors on this machine, and says that they are on the host of its settings."""

    images = None

    def __init__(self, host):
        self._host = host
        self._local = LocalEngine()

    def __getattr__(self, name):
        return getattr(self._local, name)

    async def facts(self):
        return EngineFacts(f"Elsewhere at {self._host}", "7", isolated=True, weaknesses=("It is far away.",))

    async def start(self, spec):
        started.append(spec.profile.name)
        return await self._local.start(spec)


def make(settings, environ):
    return Elsewhere(settings.host)
'''
TOML = 'manifests = []\n[engine]\nkind = "elsewhere"\nhost = "far"\n'
Added = Callable[..., ModuleType]


@pytest.fixture
def added(tmp_path: Path) -> Iterator[Added]:
    """`added(isolates=…)`: the temporary module, whose engine has an entry in KINDS until the end of the test."""

    def add(*, isolates: bool = True) -> ModuleType:
        path = tmp_path / "elsewhere.py"
        path.write_text(MODULE, encoding="utf-8")
        spec = importlib.util.spec_from_file_location("elsewhere", path)
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules["elsewhere"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        KINDS["elsewhere"] = EngineKind(module.make, isolates=isolates, outlives_server=False)
        return module

    yield add
    KINDS.pop("elsewhere", None)
    sys.modules.pop("elsewhere", None)


@pytest.fixture
def invocation(tmp_path: Path) -> Invocation:
    """A configuration that names the added engine."""
    path = tmp_path / "engine.toml"
    path.write_text(TOML, encoding="utf-8")
    return Invocation({}, tmp_path, path)


async def test_commands_run_on_an_engine_that_was_added(added: Added, invocation: Invocation) -> None:
    module = added()
    loaded = stack.load(invocation)
    with anyio.fail_after(20):
        async with configured_gateway(invocation, loaded, for_one_call=True) as gw:
            result = await gw.call(ToolCall("local", "terminal", {"command": "echo works"}))
    assert (result.stdout, module.started) == ("works\n", ["terminal"])


def test_the_doctor_asks_an_added_engine_what_it_is(
    added: Added, invocation: Invocation, capfd: pytest.CaptureFixture[str]
) -> None:
    added()
    assert run(["doctor", "--config", str(invocation.config)], environ={}, cwd=invocation.cwd) == 0
    said = capfd.readouterr().out
    assert "Elsewhere at far 7." in said
    assert "It is far away." in said


def test_an_added_engine_without_images_builds_none_and_is_named(
    added: Added, invocation: Invocation, capfd: pytest.CaptureFixture[str]
) -> None:
    added()
    assert run(["image", "build", "--config", str(invocation.config)], environ={}, cwd=invocation.cwd) == 1
    assert "The engine 'elsewhere' has no images" in capfd.readouterr().err


def test_without_its_entry_an_engine_is_a_fault_with_file_line_and_key_that_names_those_there_are(
    added: Added, invocation: Invocation, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"engine\.toml:3: engine\.kind: must be 'docker' or 'kubernetes'; "):
        stack.load_settings(invocation)
    added()
    assert stack.load_settings(invocation).engine.kind == "elsewhere"
    with pytest.raises(
        ConfigError, match=r"\$TASKCELL__ENGINE__KIND: must be 'docker' or 'kubernetes' or 'elsewhere'; "
    ):
        stack.load_settings(Invocation({"TASKCELL__ENGINE__KIND": "elsewhe"}, tmp_path))


def test_a_file_that_was_only_found_cannot_choose_an_added_engine_that_does_not_isolate(
    added: Added, tmp_path: Path
) -> None:
    (tmp_path / "taskcell.toml").write_text(TOML, encoding="utf-8")
    added(isolates=False)
    with pytest.raises(ConfigError, match=r"taskcell\.toml:3: engine\.kind: 'elsewhere' turns isolation off"):
        stack.load_settings(Invocation({}, tmp_path))
    added(isolates=True)
    assert stack.load_settings(Invocation({}, tmp_path)).engine.kind == "elsewhere"


def test_a_log_line_says_that_an_added_engine_does_not_isolate(
    added: Added, invocation: Invocation, capfd: pytest.CaptureFixture[str]
) -> None:
    added(isolates=False)
    config = str(invocation.config)
    assert run(["exec", "--config", config, "--", "echo", "works"], environ={}, cwd=invocation.cwd) == 0
    said = capfd.readouterr()
    assert said.out == "works\n"
    assert "The engine 'elsewhere' has no isolation" in said.err
