"""`taskcell rm`: what is said of a task that has files and no sandbox."""

from __future__ import annotations

from pathlib import Path

import pytest

from taskcell.cli.app import run
from taskcell.deployment.archives import ArchiveHead
from taskcell.deployment.kept import KeptFiles
from taskcell.deployment.state_folder import StateFolder
from taskcell.model import TaskKey

CONFIG = 'deployment = "removed"\nmanifests = []\n[engine]\nkind = "local"\n'


def test_a_task_with_kept_files_and_no_sandbox_is_removed_and_one_with_neither_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "taskcell.toml").write_text(CONFIG)
    deployment = StateFolder(tmp_path / "state/taskcell/deployments/removed")
    deployment.join("a" * 16)
    files = KeptFiles(deployment, 60.0, 1 << 30)
    for task in ("one", "two"):
        draft, file = files.draft(ArchiveHead("local", task, 1.0))
        file.close()
        files.keep(draft, TaskKey("local", task))
    words = ["rm", "one", "--config", str(tmp_path / "taskcell.toml")]
    environ = {"XDG_STATE_HOME": str(tmp_path / "state"), "HOME": str(tmp_path)}
    assert run(words, environ=environ, cwd=tmp_path) == 0
    assert capsys.readouterr().out == "0 sandboxes closed, kept files of 1 task deleted.\n"
    assert files.tasks() == [TaskKey("local", "two")]
    assert run(words, environ=environ, cwd=tmp_path) == 1
    printed = capsys.readouterr()
    assert printed.out == "0 sandboxes closed.\n"
    assert "No sandbox or kept files of 'one'" in printed.err
