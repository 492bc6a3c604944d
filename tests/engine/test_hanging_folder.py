"""A project's folder on a file system that hangs: calls end in time, and say why."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from gateways import GatewayFactory
from hanging_folder import HangingFolder
from second_engine import DASH, SecondEngine
from taskcell.assembly.folder import check_answers
from taskcell.assembly.invocation import Invocation
from taskcell.assembly.stack import load_settings
from taskcell.errors import ConfigError
from taskcell.model import ToolCall

needs_fuse = pytest.mark.skipif(
    os.geteuid() != 0 or not os.access("/dev/fuse", os.R_OK), reason="only root can mount a file system of FUSE"
)
pytestmark = [pytest.mark.anyio, needs_fuse]
#: Of the folder: nobody on this machine.
OWNER = (12345, 12346)
#: Seconds for a call whose command cannot be killed: its time-out of 2 s, the kill, and a busy machine.
BOUND = 90.0


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[HangingFolder]:
    (tmp_path / "project").mkdir()
    made = HangingFolder(tmp_path / "project", OWNER)
    try:
        yield made
    finally:
        made.close()


def test_a_folder_that_answers_is_taken_and_one_that_hangs_is_a_fault_of_the_configuration(
    folder: HangingFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "taskcell.toml"
    config.write_text(f'[workspace]\nfolder = "{folder.path}"\n')
    check_answers(folder.path)
    check_answers(tmp_path / "nowhere")
    folder.hang()
    with pytest.raises(ConfigError, match=r"did not answer within 10 s, .* name another folder as workspace\.folder"):
        load_settings(Invocation({}, tmp_path, config))


@pytest.mark.engine
@pytest.mark.faults
async def test_a_folder_that_hangs_under_a_task_costs_no_call_more_than_its_timeout_and_the_kill(
    gateway: GatewayFactory, second_engine: SecondEngine, folder: HangingFolder
) -> None:
    toml = f'{DASH}[workspace]\nfolder = "{folder.path}"\n'
    async with gateway(toml, host=second_engine.host) as gw:
        assert (await gw.call(ToolCall("local", "terminal", {"command": "pwd"}))).stdout == "/workspace\n"
        folder.hang()
        with anyio.fail_after(BOUND):
            line = {"command": "echo begun; : > /workspace/f; echo ended", "timeout": 2, "workdir": "/"}
            result = await gw.call(ToolCall("local", "terminal", line))
        folder.close()  # before the container is removed, which would wait for it
    assert result.status.value == "lost"
    assert "processes survived the kill" in result.notes[0]
    assert "ended" not in result.stdout
