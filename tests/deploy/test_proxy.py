"""Caddy in front of the server, with TLS from a CA of one's own: streams, cancels and refusals come through."""

from __future__ import annotations

import datetime
import ipaddress
import os
import shutil
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import anyio
import httpx2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client

from asking import text_of
from http_serving import ERAS, LOCAL, PATIENCE, serving_http, tokens_for
from observe import alive, eventually, marker

pytestmark = pytest.mark.deploy

CADDYFILE = Path(__file__).parent.parent.parent / "deploy/caddy/Caddyfile"
NAME = "localhost"


def signed(folder: Path) -> Path:
    """Make a CA, and a certificate of it for the proxy; return the file of the CA's own certificate."""
    ca_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a team's own CA")])
    begin = datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=1)
    end = begin + datetime.timedelta(days=1)
    empty = x509.CertificateBuilder().issuer_name(ca_name).not_valid_before(begin).not_valid_after(end)
    names = x509.SubjectAlternativeName([x509.DNSName(NAME), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    identifier = x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key())
    authority = (
        empty.subject_name(ca_name).public_key(ca_key.public_key()).serial_number(1).add_extension(identifier, False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True).sign(ca_key, hashes.SHA256())
    )  # fmt: skip
    own = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAME)])
    certificate = (
        empty.subject_name(own).public_key(key.public_key()).serial_number(2).add_extension(names, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
        .sign(ca_key, hashes.SHA256())
    )  # fmt: skip
    form, kind = serialization.PrivateFormat.PKCS8, serialization.Encoding.PEM
    (folder / "tls.key").write_bytes(key.private_bytes(kind, form, serialization.NoEncryption()))
    (folder / "tls.crt").write_bytes(certificate.public_bytes(kind))
    (folder / "ca.crt").write_bytes(authority.public_bytes(kind))
    return folder / "ca.crt"


class Proxied:
    """A server behind the proxy, as its clients see it."""

    def __init__(self, url: str, token: str, authority: Path) -> None:
        self.url = url
        self._token = token
        self._trusting = ssl.create_default_context(cafile=str(authority))

    def http(self, token: str | None = None) -> httpx2.AsyncClient:
        headers = {"authorization": f"Bearer {self._token if token is None else token}"}
        return httpx2.AsyncClient(headers=headers, verify=self._trusting, timeout=PATIENCE)

    @asynccontextmanager
    async def client(self, mode: str) -> AsyncIterator[Client]:
        async with (
            self.http() as http,
            Client(streamable_http_client(f"{self.url}/mcp", http_client=http), mode=mode) as client,
        ):
            yield client


@contextmanager
def caddy(folder: Path, upstream: int, site: str) -> Iterator[None]:
    program = shutil.which("caddy")
    assert program, "run `make test-deploy`, which installs Caddy"
    env = {
        **os.environ, "HOME": str(folder), "SITE": site, "UPSTREAM": f"127.0.0.1:{upstream}",
        "CERTIFICATE": str(folder / "tls.crt"), "KEY": str(folder / "tls.key"),
    }  # fmt: skip
    with (folder / "caddy.log").open("wb") as log:
        command = [program, "run", "--config", str(CADDYFILE), "--adapter", "caddyfile"]
        process = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        yield
    finally:
        process.terminate()
        process.wait(PATIENCE)


@pytest.fixture
def proxied(tmp_path: Path) -> Iterator[Proxied]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    site = f"https://{NAME}:{port}"
    authority, [token] = signed(tmp_path), tokens_for(tmp_path, "ada")
    toml = f'{LOCAL}[http]\ntokens_file = "tokens.json"\npublic_url = "{site}"\n'
    with serving_http(tmp_path, toml) as server, caddy(tmp_path, server.port, site):
        listens = lambda: socket.socket().connect_ex(("127.0.0.1", port)) == 0  # noqa: E731
        assert eventually(listens), (tmp_path / "caddy.log").read_text()
        yield Proxied(site, token, authority)


@pytest.mark.anyio
@pytest.mark.parametrize("mode", ERAS)
async def test_progress_comes_through_the_proxy_while_the_command_runs(proxied: Proxied, mode: str) -> None:
    heard = anyio.Event()

    async def hear(done: float, total: float | None, message: str | None) -> None:
        heard.set()

    with anyio.fail_after(PATIENCE):
        async with proxied.client(mode) as client, anyio.create_task_group() as calls:
            wait = "echo first; until [ -e go ]; do sleep 0.1; done; echo last"
            answers = []

            async def call() -> None:
                answers.append(await client.call_tool("terminal", {"command": wait}, progress_callback=hear))

            calls.start_soon(call)
            await heard.wait()  # the command only ends after this
            await client.call_tool("write_file", {"path": "go", "content": ""})
    assert text_of(answers[0]).startswith("first\nlast\n")


@pytest.mark.anyio
@pytest.mark.parametrize("mode", ERAS)
async def test_a_cancel_comes_through_the_proxy(proxied: Proxied, mode: str) -> None:
    mark = marker()
    with anyio.fail_after(PATIENCE):
        async with proxied.client(mode) as client:
            async with anyio.create_task_group() as calls:
                calls.start_soon(client.call_tool, "terminal", {"command": f"sleep {mark}"})
                assert await anyio.to_thread.run_sync(lambda: eventually(lambda: bool(alive(mark))))
                calls.cancel_scope.cancel()
            assert await anyio.to_thread.run_sync(lambda: eventually(lambda: not alive(mark)))


@pytest.mark.anyio
async def test_refusals_and_the_servers_health_come_through_the_proxy(proxied: Proxied) -> None:
    async with proxied.http(token="no token") as http:
        refused = await http.post(f"{proxied.url}/mcp", json={})
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"].startswith("Bearer ")
        assert (await http.get(f"{proxied.url}/healthz")).text == "ok\n"


@pytest.mark.anyio
async def test_who_does_not_know_the_ca_does_not_connect(proxied: Proxied) -> None:
    async with httpx2.AsyncClient(timeout=PATIENCE) as http:
        with pytest.raises(httpx2.ConnectError, match="certificate"):
            await http.get(f"{proxied.url}/healthz")
