"""What people run, through the network by name: package managers of seven languages, HTTP clients, WebSocket and gRPC.

`make test-egress` runs these. pip and npm ask the registries that this machine is set up for, which are found when the
tests run; the others a registry on loopback, whose certificate no system knows.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from ipaddress import ip_address
from pathlib import Path

import docker
import pytest

from configured_hosts import certificates, configured_hosts
from gateways import GatewayFactory
from https_server import HOST, HttpsServer, https_server
from package_registries import MAVEN_COMPILE, MAVEN_PROGRAM, TEXT, add_cargo, add_go, add_maven, maven_project
from taskcell.destinations import Address
from taskcell.egress.dial import SystemResolver
from taskcell.images.default import REFERENCE
from taskcell.model import ProcessResult, ToolCall
from toolchains import GO, MAVEN, NODE, RUST, ensure

pytestmark = [pytest.mark.anyio, pytest.mark.engine, pytest.mark.registries]

SERVERS = Path(__file__).parent / "servers"
#: `scripts/egress.sh` makes it, with what the servers need.
SERVERS_PYTHON = Path(__file__).parents[2] / ".cache" / "egress" / "bin" / "python"
TRUSTED = "/workspace/ca.pem"
#: By these, programs are told which certificates to trust.
BUNDLES = (
    "SSL_CERT_FILE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO", "PIP_CERT", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS",
    "CARGO_HTTP_CAINFO", "npm_config_cafile", "YARN_CAFILE",
)  # fmt: skip
#: Seconds for a command that downloads, on a busy machine.
PATIENCE = 300
NOT_USED = "this program did not use it"


class AlsoHere:
    """Resolves as this machine does, and one name more."""

    def __init__(self) -> None:
        self._system = SystemResolver()

    async def __call__(self, host: str, port: int) -> Sequence[Address]:
        return [ip_address("127.0.0.1")] if host == HOST else await self._system(host, port)


class Sandbox:
    """A task whose profile may reach the registries of this machine, and ports of this test's servers."""

    def __init__(self, gateway, url: str) -> None:
        self._gateway, self.url = gateway, url

    async def run(self, command: str) -> ProcessResult:
        text = command.replace("{url}", self.url)
        arguments = {"command": text, "task_id": "t", "timeout": PATIENCE, "wait": PATIENCE}
        done = await self._gateway.call(ToolCall("local", "terminal", arguments))
        assert isinstance(done, ProcessResult)
        return done

    async def prints(self, command: str, printed: str) -> None:
        done = await self.run(command)
        assert (done.stdout, done.exit_code, done.notes) == (printed, 0, ()), f"{command}\n{done}"


@asynccontextmanager
async def sandbox(
    gateway: GatewayFactory, server: HttpsServer, image: str, *ports: int, registries: bool = False
) -> AsyncIterator[Sandbox]:
    here = [f"{name}:{port}" for port in (server.port, *ports) for name in (HOST, "127.0.0.1")]
    entries = json.dumps([*here, *(configured_hosts(image) if registries else ())])
    environment = json.dumps([f"{name}={TRUSTED}" for name in BUNDLES])
    toml = (
        f'[terminal]\nimage = "{image}"\negress = {entries}\nenvironment = {environment}\n'
        f'[policy]\nallowed_egress = {entries}\n[pool]\non_exit = "close"\n'
    )
    async with gateway(toml=toml, resolve=AlsoHere()) as gw:
        bundle = {"path": "ca.pem", "content": f"{certificates()}\n{server.certificate}", "task_id": "t"}
        await gw.call(ToolCall("local", "write_file", bundle))
        yield Sandbox(gw, server.url)


@contextmanager
def serving(program: str, folder: Path) -> Iterator[int]:
    """A server of `servers/` with the certificate of `https_server`, on the port that this yields."""
    argv = [str(SERVERS_PYTHON), str(SERVERS / program), str(folder / "cert.pem"), str(folder / "key.pem")]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.kill()


PYTHON_CLIENTS = {
    "requests": 'import requests; print(requests.get("{url}/hello.txt").text)',
    "httpx": 'import httpx, os, ssl; c = ssl.create_default_context(cafile=os.environ["SSL_CERT_FILE"]); '
    'print(httpx.get("{url}/hello.txt", verify=c).text)',
}
WEBSOCKET = """
import ssl
from websockets.sync.client import connect
with connect("wss://HOST:PORT", ssl=ssl.create_default_context(cafile="/workspace/ca.pem")) as socket:
    socket.send("there")
    print(socket.recv())
"""
GRPC = """
import grpc
credentials = grpc.ssl_channel_credentials(open("/workspace/ca.pem", "rb").read())
with grpc.secure_channel("HOST:PORT", credentials) as channel:
    print(channel.unary_unary("/Hello/Say")(b"there", timeout=60).decode())
"""


async def test_pip_uv_and_pythons_clients_work_over_http_websocket_and_grpc(
    gateway: GatewayFactory, tmp_path: Path
) -> None:
    with (
        https_server(tmp_path) as server,
        serving("websocket_hello.py", tmp_path) as websocket,
        serving("grpc_hello.py", tmp_path) as grpc,
    ):
        async with sandbox(gateway, server, REFERENCE, websocket, grpc, registries=True) as task:
            await task.prints(
                "pip install -q --user uv requests httpx websockets grpcio && echo installed", "installed\n"
            )
            await task.prints(
                "~/.local/bin/uv pip install -q --target own --index-url {url}/simple greeting 2>&1 && "
                "PYTHONPATH=own python3 -c 'import greeting; print(greeting.TEXT)'",
                "from the index\n",
            )
            for program in PYTHON_CLIENTS.values():
                await task.prints(f"python3 -c '{program}'", "hello\n\n")
            for program, port in ((WEBSOCKET, websocket), (GRPC, grpc)):
                text = program.replace("HOST", HOST).replace("PORT", str(port))
                await task.prints(f"python3 - <<'END'\n{text}END", "hello there\n")


FETCH = 'fetch("{url}/hello.txt").then((r) => r.text()).then((t) => process.stdout.write(t))'


async def test_npm_yarn_and_nodes_fetch_work(
    gateway: GatewayFactory, tmp_path: Path, docker_api: docker.APIClient
) -> None:
    registry = subprocess.run(["npm", "config", "get", "registry"], capture_output=True, text=True, check=True).stdout
    with https_server(tmp_path) as server:
        async with sandbox(gateway, server, ensure(docker_api, NODE), registries=True) as task:
            await task.run(f"export npm_config_registry={registry.strip()} YARN_REGISTRY={registry.strip()}")
            show = "node -p 'require(\"left-pad\")(1, 3, 0)'"
            install = "npm install --silent --no-audit --no-fund"
            await task.prints(f"mkdir n && cd n && {install} left-pad && {show}", "001\n")
            yarn = "../n/node_modules/.bin/yarn"
            await task.prints(
                f"{install} yarn@1 && mkdir ../y && cd ../y && echo '{{}}' > package.json && "
                f"{yarn} add --silent --no-progress left-pad 2>/dev/null && {show}",
                "001\n",
            )
            refused = await task.run(f"cd ~/n && node -e '{FETCH}'")
            assert refused.exit_code != 0
            [note] = refused.notes
            assert NOT_USED in note
            assert "NODE_USE_ENV_PROXY" in note
            dispatch = 'const u = require("undici"); u.setGlobalDispatcher(new u.EnvHttpProxyAgent());'
            await task.prints(f"{install} undici@6 && node --no-warnings -e '{dispatch} {FETCH}'", "hello\n")


async def test_go_gets_a_module(gateway: GatewayFactory, tmp_path: Path, docker_api: docker.APIClient) -> None:
    with https_server(tmp_path) as server:
        add_go(tmp_path / "served")
        async with sandbox(gateway, server, ensure(docker_api, GO)) as task:
            await task.run("export GOPATH=/workspace/go GOPROXY={url}/go GONOSUMDB='*' GOFLAGS=-mod=mod GOSUMDB=off")
            program = 'package main\n\nimport "greeting.test/hello"\n\nfunc main() { println(hello.Text) }\n'
            await task.run(f"mkdir g && cd g && go mod init x && cat > main.go <<'END'\n{program}END")
            await task.prints("go get greeting.test/hello@v1.0.0 2>/dev/null; go run . 2>&1", f"{TEXT}\n")


async def test_cargo_builds_with_a_crate(gateway: GatewayFactory, tmp_path: Path, docker_api: docker.APIClient) -> None:
    with https_server(tmp_path) as server:
        add_cargo(tmp_path / "served", server.url)
        config = (
            '[net]\ngit-fetch-with-cli = true\n[source.crates-io]\nreplace-with = "own"\n'
            f'[source.own]\nregistry = "{server.url}/index.git"\n'
        )
        manifest = '[package]\nname = "x"\nversion = "0.1.0"\nedition = "2021"\n[dependencies]\ngreeting = "1"\n'
        async with sandbox(gateway, server, ensure(docker_api, RUST)) as task:
            await task.run(
                "export CARGO_HOME=/workspace/cargo && mkdir -p cargo x/src && cd x && "
                f"cat > Cargo.toml <<'END'\n{manifest}END\ncat > ../cargo/config.toml <<'END'\n{config}END\n"
                "echo 'fn main() { println!(\"{}\", greeting::TEXT) }' > src/main.rs"
            )
            await task.prints("cargo run -q 2>&1", f"{TEXT}\n")


async def test_maven_is_told_its_variable_and_then_compiles_with_a_dependency(
    gateway: GatewayFactory, tmp_path: Path, docker_api: docker.APIClient
) -> None:
    image = ensure(docker_api, MAVEN)
    with https_server(tmp_path) as server:
        add_maven(tmp_path / "served", image)
        async with sandbox(gateway, server, image) as task:
            await task.run(
                f"cat > own.pem <<'END'\n{server.certificate}END\n"
                "keytool -importcert -noprompt -file own.pem -alias own -keystore trust.p12 -storepass changeit && "
                f"cat > pom.xml <<'END'\n{maven_project(server.url)}\nEND\n"
                f"mkdir -p src/main/java && cat > src/main/java/Own.java <<'END'\n{MAVEN_PROGRAM}\nEND"
            )
            trust = "-Djavax.net.ssl.trustStore=/workspace/trust.p12 -Djavax.net.ssl.trustStorePassword=changeit"
            await task.run(f"export MAVEN_OPTS='{trust}'")
            maven = f"mvn -B -q -Dmaven.repo.local=/workspace/m2 {MAVEN_COMPILE}"
            refused = await task.run(maven)
            assert refused.exit_code != 0
            [note] = refused.notes
            assert NOT_USED in note
            assert "JAVA_TOOL_OPTIONS" in note
            options = next(word for word in note.split("`") if word.startswith("JAVA_TOOL_OPTIONS"))
            show = 'java -cp target/classes:"$(find m2 -name commons-lang3-*.jar)" Own'
            await task.prints(f"export {options}; {maven} -U >said 2>&1 || cat said; {show} 2>/dev/null", "Built\n")
