"""The client and the adapters as a package of their own, `taskcell-client`, without what only a server needs."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from taskcell.client import connect
from taskcell.client.blocking import connect as connect_blocking
from taskcell.client.failures import CellError

ROOT = Path(__file__).resolve().parents[2]
CLIENT = tomllib.loads((ROOT / "client" / "pyproject.toml").read_text())
WHOLE = tomllib.loads((ROOT / "pyproject.toml").read_text())
FILES: dict[str, str] = CLIENT["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]


def packed() -> dict[str, Path]:
    """The modules of the package, by their names, with their files."""
    found = {}
    for source, target in FILES.items():
        path = (ROOT / "client" / source).resolve()
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            name = Path(target) / file.relative_to(path) if path.is_dir() else Path(target)
            if name.suffix == ".py":
                found[".".join(name.with_suffix("").parts).removesuffix(".__init__")] = file
    return found


def imported(file: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return names


def test_it_has_every_module_that_its_modules_import_and_no_other() -> None:
    modules = packed()
    used: set[str] = {"taskcell"}
    for file in modules.values():
        for name in imported(file):
            if (
                name.split(".")[0] == "taskcell"
                and (ROOT / "server" / Path(*name.split("."))).with_suffix(".py").exists()
            ):
                used.add(name)
    assert used <= set(modules)
    assert {name for name in modules if name.count(".") == 1} <= used | {"taskcell.client", "taskcell.integrations"}


def test_it_names_the_packages_that_they_import_as_the_server_does() -> None:
    wanted = {name.split(".")[0] for file in packed().values() for name in imported(file)} - set(
        sys.stdlib_module_names
    )
    frameworks = {"deepagents", "inspect_ai", "minisweagent", "openhands", "swerex", "httpx"}
    named = {line.partition(">")[0] for line in CLIENT["project"]["dependencies"]}
    # httpcore2 comes with httpx2, whose connections the client goes on with.
    assert wanted - frameworks == named | {"httpcore2", "taskcell"}
    assert set(CLIENT["project"]["dependencies"]) <= set(WHOLE["project"]["dependencies"])


def test_what_type_checkers_need_is_in_both_packages() -> None:
    assert "taskcell/py.typed" in FILES.values()
    assert (ROOT / "server" / "taskcell" / "py.typed").exists()


def test_importing_the_client_imports_none_of_the_servers_packages() -> None:
    code = "import sys, taskcell.client.blocking; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    kept_out = {"mcp", "docker", "starlette", "structlog", "uvicorn", "jwt", "pydantic", "typer", "opentelemetry"}
    assert not kept_out & set(done.stdout.split())


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment that has the client without a server, and none on its path."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name, package=None: None)
    monkeypatch.setenv("PATH", str(tmp_path))


@pytest.mark.anyio
@pytest.mark.usefixtures("alone")
async def test_without_a_server_it_says_how_to_name_one() -> None:
    with pytest.raises(CellError, match=r"give `program`, .*, or `door` or `url`"):
        async with connect():
            pass


@pytest.mark.anyio
@pytest.mark.usefixtures("alone")
async def test_a_program_on_the_path_is_taken(tmp_path: Path) -> None:
    program = tmp_path / "taskcell"
    program.write_text('#!/bin/sh\necho "it was asked to $1" >&2\nexit 3\n')
    program.chmod(0o755)
    with pytest.raises(CellError, match="The server did not start: it was asked to serve"):
        async with connect():
            pass


def test_a_program_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(CellError, match=r"did not start: .*nowhere cannot be run \(No such file"),
        connect_blocking(program=tmp_path / "nowhere"),
    ):
        pass
    program = tmp_path / "mine"
    program.write_text('#!/bin/sh\necho "it was given $*" >&2\nexit 3\n')
    program.chmod(0o755)
    with (
        pytest.raises(CellError, match=r"given serve --door --log-level warning --config its\.toml --folder x"),
        connect_blocking(program=program, config="its.toml", options=["--folder", "x"]),
    ):
        pass
