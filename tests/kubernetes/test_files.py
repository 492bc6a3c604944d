"""A task's files and its image's variables, where nothing but a program inside a pod can see them."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateways import GatewayFactory
from taskcell.gateway.gateway import Gateway
from taskcell.model import ProcessResult, ToolCall

pytestmark = [pytest.mark.anyio, pytest.mark.kubernetes]

#: A pod has no bound of its own on processes.
MAKE = "mkdir d; head -c 3000000 /dev/urandom > d/big; ln -s big d/link; chmod 700 d; sha256sum d/link > sum"
LOOK = "sha256sum -c sum; stat -c '%a %U' d d/big"
TOML = "manifests = []\n[policy]\nallow_unenforced = ['pids']\n"


async def terminal(gw: Gateway, command: str, task: str = "a", **arguments: object) -> ProcessResult:
    return await gw.call(ToolCall("local", "terminal", {"command": command, "task_id": task, **arguments}))


async def sandbox(gw: Gateway, action: str, task: str = "a", **arguments: object) -> None:
    await gw.call(ToolCall("local", "sandbox", {"action": action, "task_id": task, **arguments}))


async def test_a_sandbox_has_the_images_variables_and_none_of_the_clusters(gateway: GatewayFactory) -> None:
    async with gateway(TOML, engine="kubernetes") as gw:
        said = (await terminal(gw, "echo $PATH; env")).stdout
        assert "/workspace/.local/bin" in said
        assert "KUBERNETES" not in said


async def test_files_survive_a_reset_a_snapshot_and_a_fork(gateway: GatewayFactory, tmp_path: Path) -> None:
    async with gateway(TOML, engine="kubernetes", state=tmp_path / "state") as gw:
        await terminal(gw, MAKE)
        before = (await terminal(gw, LOOK)).stdout
        assert "OK" in before
        await sandbox(gw, "reset")
        assert (await terminal(gw, LOOK)).stdout == before
        await sandbox(gw, "snapshot", name="one")
        await terminal(gw, "rm -r d sum")
        await sandbox(gw, "restore", name="one")
        assert (await terminal(gw, LOOK)).stdout == before
        await sandbox(gw, "fork", to="b")
        assert (await terminal(gw, LOOK, "b")).stdout == before


async def test_files_outlive_the_pod_of_a_server_that_ended(gateway: GatewayFactory, tmp_path: Path) -> None:
    state = tmp_path / "state"
    async with gateway(TOML, engine="kubernetes", state=state) as gw:
        await terminal(gw, "echo kept > file")
    async with gateway(TOML, engine="kubernetes", state=state) as gw:
        assert (await terminal(gw, "cat file")).stdout == "kept\n"


async def test_what_the_user_cannot_read_is_named_and_nothing_is_lost(gateway: GatewayFactory, tmp_path: Path) -> None:
    async with gateway(TOML, engine="kubernetes", state=tmp_path / "state") as gw:
        await terminal(gw, "echo 1 > locked; chmod 0 locked")
        with pytest.raises(Exception, match="locked: Permission denied"):
            await sandbox(gw, "snapshot", name="one")
        assert (await terminal(gw, "chmod 600 locked; cat locked")).stdout == "1\n"
