"""The programs in examples/ do what they say."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
#: Seconds for a dozen sandboxes, on a machine that is busy.
PATIENCE = 300


@pytest.mark.engine
def test_a_search_over_forks_finds_the_repair_that_takes_two_steps(tmp_path: Path) -> None:
    config = tmp_path / "taskcell.toml"
    config.write_text('deployment = "tree-search"\nmanifests = []\n[pool]\non_exit = "close"\nacquire_timeout = "2m"\n')
    command = [sys.executable, str(EXAMPLES / "tree_search.py"), "--config", str(config)]
    environment = {**os.environ, "XDG_STATE_HOME": str(tmp_path / "state")}
    for _ in range(2):  # what one run leaves is not in the next one's way
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        last = done.stdout.splitlines()[-1]
        assert last in {"best: sort + mean, 4 of 4 tests pass", "best: mean + sort, 4 of 4 tests pass"}
    assert not list((tmp_path / "state").rglob("*.kept"))
