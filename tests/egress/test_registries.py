"""Real package managers against what this machine is set up to ask, which is found when the tests run.

`make test-egress` runs these. Where this machine's names lead to private addresses (a mirror), those are allowed too.
"""

from __future__ import annotations

import json
from pathlib import Path

import docker
import pytest

from asking import fields
from configured_hosts import certificates, configured_hosts
from gateways import GatewayFactory
from public_names import public_names
from serving import serving
from taskcell.images.default import REFERENCE
from taskcell.images.package_hosts import PACKAGES_LABEL
from taskcell.model import ProcessResult, ToolCall

pytestmark = [pytest.mark.anyio, pytest.mark.engine, pytest.mark.registries]

CERTIFICATES = "/workspace/ca.pem"
#: apt without root: its state and its cache are the task's own.
APT = (
    "apt-get -q -o Dir::State=/workspace/apt/state -o Dir::Cache=/workspace/apt/cache "
    "-o Dir::State::status=/var/lib/dpkg/status -o APT::Sandbox::User=agent"
)
COMMANDS = {
    "pip": (
        "pip install -q --user six && python3 -c 'import six; print(six.__name__)'",
        "six\n",
    ),
    "a build by pip": (
        # An older pip says much about the ways of building.
        "pip install -q --user --no-binary six --force-reinstall six 2>said || cat said; "
        "python3 -c 'import six; print(six.__name__)'",
        "six\n",
    ),
    "apt": (
        f"mkdir -p apt/state/lists/partial apt/cache/archives/partial && {APT} update >/dev/null && "
        f"{APT} download hello >/dev/null && dpkg-deb --field hello_*.deb Package",
        "hello\n",
    ),
}


@pytest.mark.parametrize("what", COMMANDS)
async def test_a_package_manager_works_in_a_sandbox(gateway: GatewayFactory, what: str) -> None:
    hosts = json.dumps(configured_hosts("taskcell/base:latest"))
    bundle = certificates()
    names = ("PIP_CERT", "SSL_CERT_FILE", "CURL_CA_BUNDLE") if bundle else ()
    environment = [f"{name}={CERTIFICATES}" for name in names]
    toml = (
        f"[terminal]\negress = {hosts}\nenvironment = {json.dumps(environment)}\n"
        f"[policy]\nallowed_egress = {hosts}\n[pool]\non_exit = 'close'\n"
    )
    command, printed = COMMANDS[what]
    async with gateway(toml=toml) as gw:
        if bundle:
            written = {"path": "ca.pem", "content": bundle, "task_id": "t"}
            await gw.call(ToolCall("local", "write_file", written))
        done = await gw.call(ToolCall("local", "terminal", {"command": command, "task_id": "t"}))
        assert isinstance(done, ProcessResult)
        assert done.stdout == printed, done


ONE_LINE = 'terminal.egress = ["@packages"]\n'
#: Seconds for a command that downloads, on a busy machine.
PATIENCE = 300


async def test_with_one_line_packages_are_installed_and_built_from_well_known_names(
    tmp_path: Path, docker_api: docker.APIClient
) -> None:
    """Nothing but that line is configured. The names and the certificates are real ones; see `public_names`."""
    label = docker_api.inspect_image(REFERENCE)["Config"]["Labels"][PACKAGES_LABEL]
    async with (
        public_names(tmp_path, label.split()) as program,
        serving(tmp_path, ONE_LINE, program=program) as (client, _),
    ):
        # Whom this machine trusts: a mirror in the names' place has an authority of its own.
        await client.call_tool("write_file", {"path": "ca.pem", "content": certificates()})
        for what, (command, printed) in COMMANDS.items():
            arguments = {"command": command, "env": {"PIP_CERT": CERTIFICATES}, "timeout": PATIENCE, "wait": PATIENCE}
            done = await fields(client, "terminal", arguments)
            assert (done["stdout"], done["exit_code"], done["notes"]) == (printed, 0, []), (what, done)
        refused = await fields(client, "terminal", {"command": "curl -sS -o /dev/null https://example.org/"})
        assert refused["exit_code"] != 0
        assert any("may not reach 'example.org:443'" in note for note in refused["notes"]), refused
