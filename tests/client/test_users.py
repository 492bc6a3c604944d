"""The client for programs: commands and shells of another user, in containers."""

from __future__ import annotations

from pathlib import Path

import pytest

from client_serving import served
from gateways import GatewayFactory
from taskcell.client.failures import DeniedError, ForbiddenError

pytestmark = [pytest.mark.anyio, pytest.mark.engine]

NAMED = 'manifests = []\n[policy]\ntask_users = ["www-*", "toor"]\n'
SUDO = "manifests = []\n[terminal]\nsudo = true\n[policy]\nallow_sudo = true\n"


async def test_a_user_that_the_policy_names_runs_commands_and_shares_the_files(
    gateway: GatewayFactory, tmp_path: Path
) -> None:
    async with served(gateway, tmp_path / "state", NAMED, engine="docker") as cell:
        task = await cell.open("own")
        await task.run("echo mine >made; mkdir folder")
        done = await task.run(
            ["sh", "-c", "id -un; echo $USER; cat made; echo yours >>made; >folder/new"], user="www-data"
        )
        assert (done.stdout, done.stderr) == (b"www-data\nwww-data\nmine\n", b"")
        line = await task.run("cat made; rm folder/new; id -un", user="www-data")
        assert line.check().stdout == b"mine\nyours\nwww-data\n"
        assert (await task.run("id -u")).stdout == b"1000\n"
        async with task.shell(user="www-data") as shell:
            await shell.run("f() { id -un; }")
            assert (await shell.run("f")).stdout == b"www-data\n"
        with pytest.raises(DeniedError, match=r"policy.task_users"):
            await task.run(["id"], user="games")
        with pytest.raises(ForbiddenError, match="there is no such user"):
            await task.run(["id"], user="www-nobody")


async def test_sudo_runs_commands_as_anybody_with_the_calls_variables(gateway: GatewayFactory, tmp_path: Path) -> None:
    async with served(gateway, tmp_path / "state", SUDO, engine="docker") as cell:
        task = await cell.open("own")
        done = await task.run(
            ["sh", "-c", "id -un; echo $GIVEN; cat; exit 3"], user="root", env={"GIVEN": "a b"}, stdin=b"in"
        )
        assert (done.stdout, done.exit_code) == (b"root\na b\nin", 3)
        assert (await task.run("id -un", user="games")).stdout == b"games\n"
        for user in ("root", "games"):
            async with task.shell(user=user) as shell:
                await shell.run("f() { id -un; }")
                assert (await shell.run("f")).stdout == f"{user}\n".encode()
