"""The command line in this process: fast, with its own surroundings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from taskcell.cli.app import run

LOCAL = 'manifests = []\n[engine]\nkind = "local"\n'


@dataclass(frozen=True)
class Done:
    """What a command line left behind."""

    code: int
    out: str
    err: str


Taskcell = Callable[..., Done]


@pytest.fixture
def taskcell(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Taskcell:
    """`taskcell("skills", "list", toml="…", environ={…})` in a folder of its own; `toml` None means no file."""

    def call(*arguments: str, toml: str | None = LOCAL, environ: dict[str, str] | None = None) -> Done:
        surroundings = dict(environ or {})
        if toml is not None:
            file = tmp_path / "taskcell.toml"
            file.write_text(toml, encoding="utf-8")
            surroundings.setdefault("TASKCELL_CONFIG", str(file))
        capfd.readouterr()
        code = run(arguments, environ=surroundings, cwd=tmp_path)
        return Done(code, *capfd.readouterr())

    return call
