"""What systemd and Compose say of the files that a machine for a team is set up with."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.deploy

DEPLOY = Path(__file__).parent.parent.parent / "deploy"
PATIENCE = 60.0
#: Of systemd's scale from 0 to 100 (shown as 0.0 to 10.0): an ordinary service has 96.
MAX_EXPOSURE = 20


def run(*words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE, check=False, env=environ or None)


def test_systemd_finds_no_fault_in_the_unit_and_little_that_it_exposes(tmp_path: Path) -> None:
    unit = (DEPLOY / "systemd/taskcell.service").read_text(encoding="utf-8")
    program = tmp_path / "taskcell"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    copy = tmp_path / "taskcell.service"
    copy.write_text(unit.replace("/opt/taskcell/bin/taskcell", str(program)))
    verified = run("systemd-analyze", "verify", str(copy))
    # Units of the machine itself, which systemd looks at too, may have faults.
    assert [line for line in verified.stderr.splitlines() if "taskcell" in line] == []
    judged = run("systemd-analyze", "security", "--offline=true", f"--threshold={MAX_EXPOSURE}", str(copy))
    assert judged.returncode == 0, judged.stdout


def test_the_unit_gives_the_server_the_time_that_its_end_takes() -> None:
    unit = (DEPLOY / "systemd/taskcell.service").read_text(encoding="utf-8")
    compose = (DEPLOY / "compose.yaml").read_text(encoding="utf-8")
    seconds = [re.search(r"TimeoutStopSec=(\d+)", unit), re.search(r"stop_grace_period: (\d+)s", compose)]
    assert all(found and int(found[1]) > 10 for found in seconds)


def test_compose_reads_its_file_and_asks_for_the_sockets_group() -> None:
    words = ("docker-compose", "--file", str(DEPLOY / "compose.yaml"), "config")
    known = run(*words, PATH="/usr/bin:/bin", DOCKER_GID="998")
    assert known.returncode == 0, known.stderr
    assert "taskcell/server:latest" in known.stdout
    unknown = run(*words, PATH="/usr/bin:/bin")
    assert unknown.returncode != 0
    assert "stat -c %g" in unknown.stderr
