"""Ports through a whole server over HTTP with tokens, and by the command `taskcell forward`."""

from __future__ import annotations

import os
import select
import signal
import socket
import ssl
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import anyio
import anyio.abc
import anyio.to_thread
import pytest
from anyio.streams.tls import TLSListener

from http_serving import LOCAL, PATIENCE, TOKENS, HttpServer, read_all, serving_http, tokens_for
from https_server import certificate_for
from proxied import serving
from taskcell.byte_streams import BROKEN
from taskcell.caller import Scope
from taskcell.cli.app import run
from taskcell.cli.forwarding import has_gone
from taskcell.cli.port_servers import NotForwarded, RemoteServer
from taskcell.secret import Hidden

pytestmark = pytest.mark.anyio

DOCKER = 'manifests = []\n[pool]\nwarm = 0\non_exit = "close"\n'
SERVER = "\n".join(
    (
        "import http.server, socketserver, sys",
        "class Hello(http.server.BaseHTTPRequestHandler):",
        "    def do_GET(self):",
        "        body = ('hello ' + str(self.headers['Authorization'])).encode()",
        "        self.send_response(200)",
        "        self.send_header('Content-Length', str(len(body)))",
        "        self.end_headers()",
        "        self.wfile.write(body)",
        "    def log_message(self, *args): pass",
        "server = socketserver.ThreadingTCPServer(('127.0.0.1', 0), Hello)",
        "print('port', server.server_address[1], flush=True)",
        "server.serve_forever()",
    )
)


async def start_server(server: HttpServer, token: str, task: str, said: list[str] | None = None) -> int:
    """Have a command of the task serve a page; return its port.

    Arguments:
        said: gets the notes of the answer that has the port.
    """
    async with server.client(token) as client:
        line = 'exec python3 -c "$CODE"'
        arguments = {"command": line, "env": {"CODE": SERVER}, "task_id": task, "background": True}
        started = await client.call_tool("terminal", arguments, meta={"taskcell/structured": True})
        assert started.structured_content is not None, started
        process = started.structured_content["process_id"]
        found = await client.call_tool(
            "process",
            {"action": "wait", "process_id": process, "task_id": task, "until": r"port \d+", "wait": PATIENCE},
            meta={"taskcell/structured": True},
        )
    assert found.structured_content is not None, found
    if said is not None:
        said += found.structured_content["notes"]
    return int(found.structured_content["stdout"].split()[1])


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[HttpServer, list[str]]]:
    """A server, and tokens of ada, of bob, and one of ada's without the scope `ports`."""
    folder = tmp_path_factory.mktemp("ports")
    tokens = tokens_for(folder, "ada", "bob")
    tokens += tokens_for(folder, "ada", scopes=frozenset({Scope.TERMINAL}))
    with serving_http(folder, TOKENS) as server:
        yield server, tokens


async def test_a_port_is_its_principals_alone_and_needs_the_scope(served: tuple[HttpServer, list[str]]) -> None:
    server, (ada, bob, limited) = served
    port = await start_server(server, ada, "web")
    path = f"/ports/web/{port}/"
    status, headers, body = server.request(path=path, authorization=f"Bearer {ada}")
    assert (status, body) == (200, "hello None"), "the token went into the sandbox"
    assert headers["content-security-policy"].startswith("sandbox ")
    assert server.request(path=path)[0] == 401
    assert server.request(path=path, authorization=f"Bearer {limited}")[0] == 403
    assert server.request(path=path, authorization=f"Bearer {bob}")[0] == 404
    status, _, _ = server.request(path=path.rstrip("/"), authorization=f"Bearer {bob}", **UPGRADE)
    assert status == 404


async def test_a_page_of_a_sandbox_reaches_nothing_of_this_origin(served: tuple[HttpServer, list[str]]) -> None:
    """A sandboxed page has the origin `null`, which is refused with any token, and before it."""
    server, (ada, *_) = served
    for path in ("/mcp", "/files/web/x", "/ports/web/80/", "/healthz"):
        assert server.request("GET", path, origin="null", authorization=f"Bearer {ada}")[0] == 403


async def test_without_tokens_no_page_of_another_port_may_call_not_even_one_of_this_machine(tmp_path: Path) -> None:
    """A page of a forwarded port has an origin on loopback, and an agent wrote it."""
    allowed = LOCAL + '[http]\nallowed_origins = ["http://localhost:6274"]\n'
    with serving_http(tmp_path, allowed) as server:
        assert server.request(path="/healthz")[0] == 200
        assert server.request(path="/healthz", origin="http://127.0.0.1:8000")[0] == 403
        assert server.request(path="/healthz", origin="http://localhost:6274")[0] == 200
        assert server.request(path="/healthz", host="localhost:8765", origin="http://localhost:8765")[0] == 200
        assert server.request(path="/healthz", host="localhost:8765", origin="http://localhost:8766")[0] == 403
        assert server.request(path="/healthz", host="evil.example", origin="http://evil.example")[0] == 421


@contextmanager
def forwarded_to(server: HttpServer, token: str, port: int) -> Iterator[socket.socket]:
    """A connection that is forwarded to a port of the task `web`."""
    with server.connect() as forwarded:
        head = f"GET /ports/web/{port} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n"
        forwarded.sendall(f"{head}Connection: upgrade\r\nUpgrade: taskcell-forward\r\n\r\n".encode())
        assert forwarded.recv(1 << 16).startswith(b"HTTP/1.1 101 ")
        yield forwarded


async def test_the_server_ends_in_time_with_ports_in_use(tmp_path: Path) -> None:
    (ada,) = tokens_for(tmp_path, "ada")
    with serving_http(tmp_path, TOKENS) as server:
        port = await start_server(server, ada, "web")
        with forwarded_to(server, ada, port) as forwarded:
            assert server.end() == 0
            assert read_all(forwarded) == b""


async def test_a_revoked_token_ends_its_connections(tmp_path: Path) -> None:
    from taskcell.auth.tokens import TokenFile

    (ada,) = tokens_for(tmp_path, "ada")
    with serving_http(tmp_path, TOKENS) as server:
        port = await start_server(server, ada, "web")
        with forwarded_to(server, ada, port) as forwarded:
            TokenFile(tmp_path / "tokens.json").revoke([ada.split("_")[1]])
            assert read_all(forwarded) == b""


@contextmanager
def forward(folder: Path, *words: str, **variables: str) -> Iterator[subprocess.Popen[str]]:
    """`taskcell forward`: beside the folder's server, or with `--http` on a machine that knows no server."""
    configured = () if "--http" in words else ("--config", str(folder / "taskcell.toml"))
    command = [sys.executable, "-m", "taskcell", "forward", *words, *configured]
    env = {**os.environ, "XDG_STATE_HOME": str(folder / "state"), **variables}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    # A shell lets what it starts in the background ignore ^C, and so would whatever a test starts there.
    hear = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = subprocess.Popen(command, text=True, env=env, cwd=folder, preexec_fn=hear, **streams)  # noqa: PLW1509
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def page_of(running: subprocess.Popen[str], port: int) -> bytes:
    """What a browser gets at the address that the command's first line says."""
    assert running.stdout is not None
    said = running.stdout.readline()
    assert said.endswith(f"to port {port} of web\n"), said or running.communicate(timeout=PATIENCE)
    place = said.split()[2]
    assert place.startswith("127.0.0.1:")
    with socket.create_connection(("127.0.0.1", int(place.split(":")[1])), PATIENCE) as page:
        page.sendall(b"GET / HTTP/1.0\r\n\r\n")
        return read_all(page)


@pytest.mark.engine
async def test_the_command_says_where_it_listens_and_ends_with_ctrl_c(tmp_path: Path) -> None:
    with serving_http(tmp_path, DOCKER) as server:
        said_to_model: list[str] = []
        port = await start_server(server, "", "web", said_to_model)
        assert sum(f"`taskcell forward web {port}`" in note for note in said_to_model) == 1
        with forward(tmp_path, "web", f"{port}:0") as running:
            assert page_of(running, port).endswith(b"hello None")
            running.send_signal(signal.SIGINT)
            _, errors = running.communicate(timeout=PATIENCE)
            assert (running.returncode, errors) == (130, "")


UPGRADE = {"connection": "upgrade", "upgrade": "taskcell-forward"}


# --- a server on another machine -----------------------------------------------------------------------------------


@asynccontextmanager
async def encrypted(folder: Path, server: HttpServer) -> AsyncIterator[str]:
    """The address of a proxy with TLS in front of a server; its authority is trusted by SSL_CERT_FILE alone."""
    (folder / "ca.pem").write_text(certificate_for("localhost", folder))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")

    async def carry(client: anyio.abc.ByteStream) -> None:
        async def pump(source: anyio.abc.ByteStream, sink: anyio.abc.ByteStream) -> None:
            with suppress(*BROKEN, anyio.EndOfStream):
                while True:
                    await sink.send(await source.receive())
            both.cancel_scope.cancel()

        inner = await anyio.connect_tcp("127.0.0.1", server.port)
        async with client, inner, anyio.create_task_group() as both:
            both.start_soon(pump, client, inner)
            both.start_soon(pump, inner, client)

    plain = await anyio.create_tcp_listener(local_host="127.0.0.1")
    listener = TLSListener(plain, context, standard_compatible=False)
    async with listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, carry)
        yield f"https://localhost:{plain.extra(anyio.abc.SocketAttribute.local_port)}"
        group.cancel_scope.cancel()


async def test_a_port_of_a_server_on_another_machine_is_forwarded_with_a_token(
    served: tuple[HttpServer, list[str]], tmp_path: Path
) -> None:
    """No configuration and no engine is needed where the person is."""
    server, (ada, *_) = served
    port = await start_server(server, ada, "web")
    (tmp_path / "token").write_text(f"{ada}\n")
    async with encrypted(tmp_path, server) as url:
        words = ("web", f"{port}:0", "--http", f"{url}/mcp", "--token-file", "token")
        with forward(tmp_path, *words, SSL_CERT_FILE=str(tmp_path / "ca.pem")) as running:
            page = await anyio.to_thread.run_sync(page_of, running, port)
            assert page.endswith(b"hello None"), "the token went into the sandbox"
            running.send_signal(signal.SIGINT)
            _, errors = await anyio.to_thread.run_sync(partial(running.communicate, timeout=2 * PATIENCE))
            assert (running.returncode, errors) == (130, "")


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (("nobody", "8000"), 1, "No running server has the task 'nobody'"),
        (("web", "http"), 2, "is not PORT[:LOCAL]"),
        (("web", "0"), 2, "is not PORT[:LOCAL]"),
        (("web", "8000:70000"), 2, "is not PORT[:LOCAL]"),
        (("web", "8000", "--http", "cells.example"), 2, "--http takes a URL"),
        (("web", "8000", "--http", "https://ada:x@cells.example"), 2, "without a name and a password"),
        (("web", "8000", "--token-file", "-"), 2, "--token-file needs --http"),
        (("web", "8000", "--http", "https://cells.example", "--token-file", "none"), 1, "cannot be read"),
    ],
)
def test_bad_words_are_said_in_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], code: int, sentence: str
) -> None:
    (config := tmp_path / "taskcell.toml").write_text(LOCAL)
    environ = {"XDG_STATE_HOME": str(tmp_path / "state")}
    assert run(["forward", *words, "--config", str(config)], environ=environ, cwd=tmp_path) == code
    errors = " ".join(capsys.readouterr().err.replace("│", "").split())
    assert sentence in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize("resets", [True, False])
def test_a_program_that_has_ended_both_ways_has_not_gone_before_its_bytes_were_read(resets: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        program = socket.create_connection(listening.getsockname())
        carried, _ = listening.accept()
        with carried:
            program.sendall(b"last words")
            carried.shutdown(socket.SHUT_WR)
            if resets:
                program.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            program.close()
            poll = select.poll()
            poll.register(carried, 0)  # errors and hang-ups are always told
            assert poll.poll(PATIENCE * 1000)
            assert has_gone(carried) is resets


async def test_both_ways_end_by_themselves_over_http(served: tuple[HttpServer, list[str]]) -> None:
    server, (ada, *_) = served
    port = await start_server(server, ada, "web")
    remote = RemoteServer(urlsplit(server.url), Hidden(ada))
    await remote.find("web", port)
    stream = await remote.open("web", port)
    try:
        await stream.send(b"GET / HTTP/1.0\r\n\r\n")
        await stream.send_eof()
        received = bytearray()
        with anyio.fail_after(PATIENCE), suppress(anyio.EndOfStream):
            while True:
                received += await stream.receive()
        assert received.endswith(b"hello None")
    finally:
        await stream.aclose()


@pytest.mark.parametrize(
    ("who", "task", "sentence"),
    [
        (None, "web", "send a token in the header Authorization"),
        (0, "nobody", "The task 'nobody' has no sandbox now"),
        (1, "web", "The task 'web' has no sandbox now"),
        (2, "web", "scope 'ports'"),
    ],
)
async def test_a_remote_server_that_does_not_let_one_in_is_quoted_before_anything_listens(
    served: tuple[HttpServer, list[str]], who: int | None, task: str, sentence: str
) -> None:
    server, tokens = served
    await start_server(server, tokens[0], "web")
    remote = RemoteServer(urlsplit(server.url), Hidden("" if who is None else tokens[who]))
    with pytest.raises(NotForwarded, match=sentence):
        await remote.find(task, 8000)
    with pytest.raises(NotForwarded, match=sentence):
        await remote.open(task, 8000)


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n", "does not speak HTTP/1.1"),
        (b"", "does not speak HTTP/1.1"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "answers 200 and not as taskcell does"),
        (b"HTTP/1.1 101 Sure\r\nUpgrade: websocket\r\n\r\n", "does not speak HTTP/1.1|answers 101 and not as"),
        (b"HTTP/1.1 308 No\r\nLocation: https://other.example/\r\n\r\n", "leads to https://other.example/; use"),
        (b'HTTP/1.1 403 No\r\n\r\n{"error": {"message": "no \\u001b[2J."}}', r"no \\x1b\[2J\."),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 3, "does not speak HTTP/1.1"),
    ],
)
async def test_what_is_not_a_server_of_tasks_is_said_in_one_sentence(answer: bytes, sentence: str) -> None:
    async with serving(answer) as other:
        remote = RemoteServer(urlsplit(f"http://127.0.0.1:{other.port}/base/mcp"), Hidden("secret"))
        with pytest.raises(NotForwarded, match=sentence):
            await remote.find("web", 8000)
        assert other.connections[-1].startswith(b"GET /base/ports/web/8000 HTTP/1.1\r\n")
        if b"other.example" not in answer:
            with pytest.raises(NotForwarded, match=sentence):
                await remote.open("web", 8000)


async def test_a_server_that_is_not_there_or_not_to_be_trusted_is_said(
    served: tuple[HttpServer, list[str]], tmp_path: Path
) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        with pytest.raises(NotForwarded, match="is not reached"):
            await RemoteServer(urlsplit(f"http://127.0.0.1:{bound.getsockname()[1]}")).find("web", 8000)
    async with encrypted(tmp_path, served[0]) as url:
        with pytest.raises(NotForwarded, match="its certificate does not count"):
            await RemoteServer(urlsplit(url)).find("web", 8000)
        plain = url.replace("https:", "http:")
        with pytest.raises(NotForwarded):
            await RemoteServer(urlsplit(plain)).find("web", 8000)
