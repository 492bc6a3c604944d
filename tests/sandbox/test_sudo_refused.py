"""A password that sudo does not take: found out once for each sandbox, and said with what helps."""

from __future__ import annotations

from pathlib import Path

import pytest

from deployment_servers import Servers, run
from gateways import GatewayFactory
from observe import marker
from taskcell.gateway.gateway import Gateway
from taskcell.model import ProcessResult, ToolCall

pytestmark = [pytest.mark.anyio, pytest.mark.engine]

GENERATED = "[terminal]\nsudo = true\n[policy]\nallow_sudo = true\n"


@pytest.fixture
def wrong(tmp_path: Path) -> str:
    """A configuration with a password that the image's user does not have: the default image's has none at all."""
    secret = tmp_path / "sudo-password"
    secret.write_text("not-the-one\n")
    secret.chmod(0o600)
    return f'{GENERATED}[sudo]\npassword_file = "{secret}"\n'


@pytest.fixture
def servers(tmp_path: Path) -> Servers:
    return Servers(tmp_path, f"sudo-{marker()[:9]}")


async def terminal(gw: Gateway, command: str) -> ProcessResult:
    return await gw.call(ToolCall("local", "terminal", {"command": command}))


async def test_a_wrong_password_costs_time_once_for_each_sandbox_and_every_answer_says_what_helps(
    gateway: GatewayFactory, wrong: str
) -> None:
    async with gateway(wrong) as gw:
        await terminal(gw, "printf 'sudo true' >script")
        # Nothing in these words calls sudo, but PID 1 has seen it.
        first = await terminal(gw, "sh script")
        (note,) = first.notes
        assert "the operator must give [sudo] the password" in note
        later = [await terminal(gw, command) for command in ("sudo true", "sudo true; sudo true", "echo works")]
    assert [result.notes for result in later] == [(note,), (note,), ()]
    # sudo has not asked again and waited: that begins with "Sorry, try again."
    refused = "sudo: no password was provided\n"
    assert [result.stdout.startswith(refused) for result in later] == [True, True, False]
    assert "Sorry" not in later[1].stdout


async def test_a_password_that_a_command_has_changed_is_named_with_the_reset_that_helps(
    gateway: GatewayFactory,
) -> None:
    async with gateway(GENERATED) as gw:
        assert (await terminal(gw, "echo agent:other | sudo chpasswd && sudo -k")).exit_code == 0
        refused = await terminal(gw, "sudo id -u")
        assert refused.exit_code == 1
        (note,) = refused.notes
        assert "use `sandbox` with the action 'reset'" in note
        await gw.call(ToolCall("local", "sandbox", {"action": "reset"}))
        result = await terminal(gw, "sudo id -u")
        assert (result.stdout, result.notes) == ("0\n", ())


async def test_a_later_server_knows_that_sudo_refuses_the_password(servers: Servers) -> None:
    servers.toml += GENERATED
    changed = "echo agent:other | sudo chpasswd; sudo -k; sudo true; true"
    await servers.leave_by_kill(changed)
    async with servers.serve() as (client, _):
        answer = await run(client, "sudo true")
    assert "use `sandbox` with the action 'reset'" in str(answer["notes"])
