"""Real package managers against what this machine is set up to ask, which is found when the tests run.

`make test-egress` runs these. Where this machine's names lead to private addresses (a mirror), those are allowed too.
"""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
from ipaddress import ip_address
from pathlib import Path

import pytest

from gateways import GatewayFactory
from taskcell.egress.rules import is_public
from taskcell.images.package_hosts import SCRIPT, read_hosts
from taskcell.model import ProcessResult, ToolCall

pytestmark = [pytest.mark.anyio, pytest.mark.engine, pytest.mark.registries]

CERTIFICATES = "/workspace/ca.pem"
#: Where Debian keeps them.
SYSTEM_STORE = "/etc/ssl/certs/ca-certificates.crt"
#: Seconds to ask ten programs for their configuration.
ASK_TIMEOUT = 60
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
        "pip install -q --user --no-binary six --force-reinstall six && python3 -c 'import six; print(six.__name__)'",
        "six\n",
    ),
    "apt": (
        f"mkdir -p apt/state/lists/partial apt/cache/archives/partial && {APT} update >/dev/null && "
        f"{APT} download hello >/dev/null && dpkg-deb --field hello_*.deb Package",
        "hello\n",
    ),
}


def configured_hosts(reference: str) -> list[str]:
    """What this machine's and the image's package managers ask, and the private addresses that they have here."""
    own = subprocess.run(["sh", "-c", SCRIPT], capture_output=True, text=True, timeout=ASK_TIMEOUT, check=False)
    asked = subprocess.run(
        ["docker", "run", "--rm", "--network", "none", "--entrypoint", "/bin/sh", reference, "-c", SCRIPT],
        capture_output=True, text=True, timeout=ASK_TIMEOUT, check=False,
    )  # fmt: skip
    hosts = list(dict.fromkeys([*read_hosts(own.stdout), *read_hosts(asked.stdout)]))
    addresses = []
    for name, port in (host.rsplit(":", 1) for host in hosts):
        try:
            found = socket.getaddrinfo(name, int(port), type=socket.SOCK_STREAM)
        except OSError:
            continue
        plain = {str(entry[4][0]) for entry in found}
        addresses += [f"[{a}]:{port}" if ":" in a else f"{a}:{port}" for a in plain if not is_public(ip_address(a))]
    return [*hosts, *addresses]


def certificates() -> str:
    """The certificates that this machine trusts; empty where there is no file of them."""
    paths = ssl.get_default_verify_paths()
    found = (Path(path) for path in (paths.cafile, paths.openssl_cafile, SYSTEM_STORE) if path)
    return next((path.read_text() for path in found if path.is_file()), "")


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
