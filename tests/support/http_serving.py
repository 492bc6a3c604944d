"""A real `taskcell serve --http` in a process of its own, clients of both eras, and requests of any bytes."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client

#: Seconds for an answer that takes milliseconds, on a busy machine with a server that is just starting.
PATIENCE = 90.0
#: Seconds within which a server must be gone after SIGTERM, with clients connected.
MUST_END = 20.0
LOCAL = 'manifests = []\n[engine]\nkind = "local"\n[pool]\nwarm = 0\n'
TOKENS = LOCAL + '[http]\ntokens_file = "tokens.json"\n'
ERAS = ["legacy", "2026-07-28"]


@dataclass
class HttpServer:
    """A server that is running."""

    process: subprocess.Popen[bytes]
    port: int
    folder: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def log(self) -> str:
        return (self.folder / "serve.log").read_text()

    def end(self) -> int:
        """Send SIGTERM; return the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(MUST_END)

    @asynccontextmanager
    async def client(self, token: str = "", mode: str = "2026-07-28", **options: Any) -> AsyncIterator[Client]:
        """The SDK's client, over real HTTP."""
        headers = {"authorization": f"Bearer {token}"} if token else {}
        async with (
            httpx2.AsyncClient(headers=headers, timeout=PATIENCE) as http,
            Client(streamable_http_client(f"{self.url}/mcp", http_client=http), mode=mode, **options) as client,
        ):
            yield client

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), PATIENCE)

    def send(self, data: bytes) -> bytes:
        """Send bytes on a connection of their own; return all that comes until the server closes it."""
        with self.connect() as connection:
            connection.sendall(data)
            return read_all(connection)

    def request(
        self, method: str = "GET", path: str = "/healthz", body: bytes = b"", **headers: str
    ) -> tuple[int, dict[str, str], str]:
        """Send one request; return status, headers and body of the answer."""
        sent = {"host": "127.0.0.1", "connection": "close", **headers}
        if body or method in ("POST", "PUT"):
            sent.setdefault("content-length", str(len(body)))
        lines = [f"{method} {path} HTTP/1.1", *(f"{name.replace('_', '-')}: {value}" for name, value in sent.items())]
        head, _, rest = self.send("\r\n".join([*lines, "", ""]).encode() + body).partition(b"\r\n\r\n")
        first, *fields = head.decode().split("\r\n")
        found = {name.lower(): value.strip() for name, _, value in (field.partition(":") for field in fields)}
        return int(first.split()[1]), found, rest.decode()

    def post(self, message: Any, token: str = "", **headers: str) -> tuple[int, dict[str, str], str]:
        """POST a message to /mcp, as bytes or as JSON of it."""
        body = message if isinstance(message, bytes) else json.dumps(message).encode()
        signed = {"authorization": f"Bearer {token}"} if token else {}
        kinds = {"content_type": "application/json", "accept": "application/json, text/event-stream"}
        return self.request("POST", "/mcp", body, **{**kinds, **signed, **headers})

    def initialize(self, token: str = "") -> str:
        """Begin a session of the handshake's era; return its id."""
        info = {"name": "raw", "version": "1"}
        params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": info}
        message = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params}
        status, headers, body = self.post(message, token)
        assert status == 200, body
        session = headers["mcp-session-id"]
        done = {"jsonrpc": "2.0", "method": "notifications/initialized"}
        assert self.post(done, token, mcp_session_id=session)[0] == 202
        return session


def read_all(connection: socket.socket) -> bytes:
    """Everything that comes until the other side closes."""
    found = bytearray()
    while piece := connection.recv(1 << 16):
        found += piece
    return bytes(found)


@contextmanager
def serving_http(folder: Path, toml: str = LOCAL, *, host: str = "127.0.0.1") -> Iterator[HttpServer]:
    """A server of this configuration that is gone when the test is."""
    config = folder / "taskcell.toml"
    config.write_text(toml, encoding="utf-8")
    command = [sys.executable, "-m", "taskcell", "serve", "--http", f"{host}:0", "--config", str(config)]
    env = {**os.environ, "XDG_STATE_HOME": str(folder / "state")}
    with (folder / "serve.log").open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder, env=env)
    try:
        yield HttpServer(process, _port(process, folder / "serve.log"), folder)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _port(process: subprocess.Popen[bytes], log: Path) -> int:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        found = re.search(r"Serving MCP at http://\S+:(\d+)/mcp", log.read_text())
        if found:
            return int(found[1])
        time.sleep(0.02)
    raise AssertionError(log.read_text())


def token_for(folder: Path, subject: str, *options: str) -> str:
    """A new token, by `taskcell token create` with the folder's configuration."""
    command = [sys.executable, "-m", "taskcell", "token", "create", subject, *options]
    done = subprocess.run(
        [*command, "--config", str(folder / "taskcell.toml")],
        capture_output=True,
        check=False,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def tokens_for(folder: Path, *subjects: str, **options: Any) -> list[str]:
    """New tokens, written by this process: quicker than the command."""
    from taskcell.auth.tokens import TokenFile
    from taskcell.caller import USUAL_SCOPES

    tokens = TokenFile(folder / "tokens.json")
    scopes, lifetime = options.get("scopes", USUAL_SCOPES), options.get("lifetime")
    return [tokens.create(subject, scopes, lifetime)[1] for subject in subjects]


def id_of(token: str) -> str:
    return token.split("_")[1]
