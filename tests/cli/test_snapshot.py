"""`taskcell snapshot`: a person sees and deletes what agents keep."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from taskcell.cli.app import run
from taskcell.deployment.archives import ArchiveHead
from taskcell.deployment.snapshots import Snapshots
from taskcell.deployment.state_folder import StateFolder

CONFIG = 'deployment = "shots"\nmanifests = []\n[engine]\nkind = "local"\n'


@pytest.fixture
def snapshots(tmp_path: Path) -> Snapshots:
    (tmp_path / "taskcell.toml").write_text(CONFIG)
    deployment = StateFolder(tmp_path / "state/taskcell/deployments/shots")
    deployment.join("a" * 16)
    made = Snapshots(deployment, 10, 1 << 30)
    for principal, name in (("local", "first"), ("ann", "first"), ("ann", "with\n\x1b[31mcolour")):
        head = ArchiveHead(principal, "t", 1_000_000.0, name=name)
        draft, file = made.draft(head)
        with file:
            file.write(b"x" * 5000)
        made.keep(draft, head)
    return made


def taskcell(tmp_path: Path, *words: str) -> int:
    environ = {"XDG_STATE_HOME": str(tmp_path / "state"), "HOME": str(tmp_path)}
    return run(["snapshot", *words, "--config", str(tmp_path / "taskcell.toml")], environ=environ, cwd=tmp_path)


def test_every_snapshot_is_listed_and_a_hostile_name_does_nothing_to_the_terminal(
    snapshots: Snapshots, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert taskcell(tmp_path, "list") == 0
    rows = [line.split("  ")[0] for line in capsys.readouterr().out.splitlines()]
    assert rows == ["NAME", "first", repr("with\n\x1b[31mcolour"), "first"]
    assert taskcell(tmp_path, "list", "--json") == 0
    first, *_ = json.loads(capsys.readouterr().out)
    assert first == {"name": "first", "principal": "ann", "task": "t", "made": 1_000_000.0, "bytes": first["bytes"]}
    assert first["bytes"] > 5000


def test_what_is_named_is_deleted_of_one_principal_or_of_all_and_what_is_not_there_is_an_error(
    snapshots: Snapshots, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert taskcell(tmp_path, "rm", "first", "--principal", "ann") == 0
    assert [one.head.name for one in snapshots.of("local")] == ["first"]
    assert len(snapshots.of("ann")) == 1
    assert taskcell(tmp_path, "rm", "first", "gone") == 1
    printed = capsys.readouterr()
    assert printed.out == "1 snapshot deleted.\n" * 2
    assert "No snapshot 'gone'" in printed.err
    assert taskcell(tmp_path, "rm", "--all") == 0
    assert taskcell(tmp_path, "list") == 0
    assert "No snapshots" in capsys.readouterr().out
    assert taskcell(tmp_path, "rm") == 2
