"""What people run in a sandbox reaches a server over HTTPS by name, and checks its certificate itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateways import GatewayFactory
from https_server import HOST, https_server
from proxied import Names
from taskcell.model import ProcessResult, ToolCall

pytestmark = [pytest.mark.anyio, pytest.mark.engine]

COMMANDS = {
    "curl -sS {url}/hello.txt": "hello\n",
    "wget -qO- {url}/hello.txt": "hello\n",
    "curl -sS --proxy socks5h://127.0.0.1:3128 {url}/hello.txt": "hello\n",
    "git clone -q {url}/repo.git && cat repo/file.txt": "content\n",
    "pip install -q --user --index-url {url}/simple greeting && python3 -c 'import greeting; print(greeting.TEXT)'": (
        "from the index\n"
    ),
    "python3 -c 'import urllib.request as r; print(r.urlopen(\"{url}/hello.txt\").read())'": "b'hello\\n'\n",
    "python3 -m venv v && v/bin/pip install -q --index-url {url}/simple greeting && echo done": "done\n",
    # A proxy that nobody had asked for, and a certificate that is not trusted, are the programs' own errors.
    "env -u SSL_CERT_FILE curl -sS -o /dev/null --cacert /dev/null {url}/ 2>/dev/null; echo $?": "77\n",
}


async def test_programs_reach_a_server_by_name_and_check_its_certificate(
    gateway: GatewayFactory, tmp_path: Path
) -> None:
    with https_server(tmp_path) as server:
        entries = f"['{HOST}:{server.port}', '127.0.0.1:{server.port}']"
        trusted = "/workspace/ca.pem"
        names = ("SSL_CERT_FILE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO", "PIP_CERT")
        environment = [f"{name}={trusted}" for name in names]
        toml = (
            f"[terminal]\negress = {entries}\nenvironment = {environment}\n[policy]\nallowed_egress = {entries}\n"
            "[pool]\non_exit = 'close'\n"
        )
        async with gateway(toml=toml, resolve=Names({HOST: ["127.0.0.1"]})) as gw:

            async def run(command: str) -> ProcessResult:
                report = await gw.call(ToolCall("local", "terminal", {"command": command, "task_id": "t"}))
                assert isinstance(report, ProcessResult)
                return report

            await run(f"cat > {trusted} <<'END'\n{server.certificate}END\necho ca_certificate={trusted} > ~/.wgetrc")
            for command, printed in COMMANDS.items():
                done = await run(command.format(url=server.url))
                assert (done.stdout, done.notes) == (printed, ()), f"{command}\n{done}"
