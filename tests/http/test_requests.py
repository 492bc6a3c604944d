"""Every kind of broken request gets one clear answer of the right status, and the server goes on."""

from __future__ import annotations

import json
import math
import select
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import anyio
import pytest
from starlette.types import Message, Receive, Scope, Send

from http_serving import TOKENS, HttpServer, id_of, read_all, serving_http, tokens_for
from observe import eventually
from taskcell.auth.tokens import TokenFile
from taskcell.http.mcp_endpoint import MAX_HALF_READ_PER_PRINCIPAL
from taskcell.http.requests import MAX_HEAD, Requests

pytestmark = pytest.mark.anyio

MAX_BODY = 100_000
CALL = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "tools/call",
    "params": {"name": "terminal", "arguments": {"command": ":"}},
}
PING = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
TWO_LENGTHS = b"content-length: %d\r\ntransfer-encoding: chunked\r\n\r\n"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[HttpServer, str]]:
    """A server that asks for tokens, and ada's token."""
    folder = tmp_path_factory.mktemp("http")
    (token,) = tokens_for(folder, "ada")
    toml = TOKENS + f'max_body = {MAX_BODY}\nallowed_hosts = ["cells.example.org", "proxy:8443"]\n'
    with serving_http(folder, toml + 'allowed_origins = ["https://app.example.org"]\n') as server:
        yield server, token
        assert server.request()[0] == 200
        assert "Traceback" not in server.log()


def sentence(body: str) -> str:
    found: dict[str, Any] = json.loads(body)
    return str(found["error"]["message"])


# --- before anybody is signed in -----------------------------------------------------------------------------------


async def test_health_needs_no_token_and_says_nothing_more(served: tuple[HttpServer, str]) -> None:
    server, _ = served
    assert server.request(path="/healthz")[::2] == (200, "ok\n")
    assert server.request(path="/readyz")[::2] == (200, "ready\n")
    assert server.request("HEAD", "/healthz")[::2] == (200, "")
    status, headers, _ = server.request("POST", "/healthz")
    assert (status, headers["allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST:1", 200),
        ("[::1]:80", 200),
        ("127.9.9.9", 200),
        ("cells.example.org", 200),
        ("cells.example.org:444", 200),
        ("proxy:8443", 200),
        ("proxy", 421),
        ("proxy:8444", 421),
        ("evil.example.org", 421),
        ("localhost.evil.example.org", 421),
        ("127.0.0.1.evil.example.org", 421),
        ("localhost@evil.example.org", 421),
        ("", 421),
        ("[::1", 421),
    ],
)
@pytest.mark.parametrize("path", ["/healthz", "/nothing"])
async def test_only_the_servers_own_names_are_answered_on_every_path(
    served: tuple[HttpServer, str], path: str, host: str, status: int
) -> None:
    server, _ = served
    expected = 404 if (path, status) == ("/nothing", 200) else status
    assert server.request(path=path, host=host)[0] == expected


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("https://app.example.org", 200),
        ("http://localhost:6274", 200),
        ("http://127.0.0.1", 200),
        ("https://app.example.org.evil.org", 403),
        ("http://app.example.org", 403),
        ("http://localhost.evil.org", 403),
        ("null", 403),
        ("file://", 403),
        ("", 403),
        ("http://[", 403),
    ],
)
async def test_pages_of_other_origins_may_not_call(served: tuple[HttpServer, str], origin: str, status: int) -> None:
    server, _ = served
    found, headers, _ = server.request(origin=origin)
    assert found == status
    assert headers.get("access-control-allow-origin") == (origin if status == 200 else None)


async def test_an_allowed_page_may_ask_before_it_calls_and_read_what_it_needs(served: tuple[HttpServer, str]) -> None:
    server, _ = served
    asks = {"access_control_request_method": "POST", "access_control_request_headers": "authorization,mcp-session-id"}
    status, headers, _ = server.request("OPTIONS", "/mcp", origin="https://app.example.org", **asks)
    assert status == 200
    assert "authorization" in headers["access-control-allow-headers"]
    status, headers, _ = server.post(PING, origin="https://app.example.org")
    assert status == 401
    assert "Mcp-Session-Id" in headers["access-control-expose-headers"]


@pytest.mark.parametrize(
    "path",
    ["/", "/mcp/", "/mcp/..", "/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/%00", "/mcp%00", "/a" * 10_000],
)
async def test_a_path_without_anything_is_not_found(served: tuple[HttpServer, str], path: str) -> None:
    status, _, body = served[0].request(path=path)
    assert status == 404
    assert "MCP is at /mcp" in sentence(body)


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GARBAGE\r\n\r\n", 400),
        (b"GET /x\0 HTTP/1.1\r\nhost: localhost\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nhost: localhost\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.0\r\n\r\n", 421),
        (b"GET /healthz HTTP/9.9\r\nhost: localhost\r\n\r\n", 505),
        (b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nbad header\r\n\r\n", 400),
        (b"POST /mcp HTTP/1.1\r\nhost: localhost\r\ncontent-length: -1\r\n\r\n", 400),
        (b"POST /mcp HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n{}", 400),
        (b"POST /mcp HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: gzip\r\n\r\n", 501),
        (b"POST /mcp HTTP/1.1\r\nhost: localhost\r\n" + TWO_LENGTHS % 5 + b"0\r\n\r\n", 400),
        (b"PUT /files/t/f HTTP/1.1\r\nhost: localhost\r\n" + TWO_LENGTHS % (1 << 21) + b"0\r\n\r\n", 400),
        (b"GET /files/t/" + b"a" * (1 << 16) + b" HTTP/1.1\r\nhost: localhost\r\n\r\n", 431),
        (b"GET /" + b"a" * (MAX_HEAD + 1) + b" HTTP/1.1\r\nhost: localhost\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nhost: localhost\r\nx: " + b"a" * (MAX_HEAD + 1) + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nhost: localhost\r\nx: " + b"a" * 1_000_000, 431),
    ],
)
async def test_what_is_not_http_is_answered_and_the_connection_closed(
    served: tuple[HttpServer, str], data: bytes, status: int
) -> None:
    with served[0].connect() as connection:
        try:
            connection.sendall(data)
            answer = read_all(connection)
        except ConnectionError:
            assert status == 431  # it was closed while the rest of the head was on its way
            return
    assert answer.startswith(f"HTTP/1.1 {status} ".encode()), answer[:200]


# --- who calls -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "authorization",
    ["Basic eDp5", "Bearer", "Bearer ", "bearer nonsense", "Bearer taskcell_a_b", "Bearer " + "a" * 13_000, "Bearer ä"],
)
async def test_a_token_that_does_not_count_is_a_401_that_says_so(
    served: tuple[HttpServer, str], authorization: str
) -> None:
    status, headers, body = served[0].post(CALL, authorization=authorization)
    assert status == 401
    assert 'error="invalid_token"' in headers["www-authenticate"]
    assert sentence(body)


async def test_without_a_token_the_401_names_no_error_and_no_place_to_get_one(served: tuple[HttpServer, str]) -> None:
    for method in ("GET", "POST", "PUT", "DELETE"):
        status, headers, _ = served[0].request(method, "/mcp")
        assert status == 401
        assert headers["www-authenticate"] == 'Bearer realm="taskcell", scope="terminal skills files ports"'
    assert served[0].request(path="/.well-known/oauth-protected-resource")[0] == 404


def test_the_route_of_the_operator_is_at_the_local_door_alone(served: tuple[HttpServer, str]) -> None:
    server, token = served
    body = b'{"principal": "local", "task": "t"}'
    assert server.request("POST", "/remove", body, authorization=f"Bearer {token}")[0] == 404


async def test_two_tokens_in_one_request_are_refused(served: tuple[HttpServer, str]) -> None:
    server, token = served
    head = f"POST /mcp HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\n"
    answer = server.send(f"{head}authorization: Bearer x\r\nconnection: close\r\ncontent-length: 0\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 400 ")


async def test_a_body_is_not_read_before_the_caller_is_signed_in(served: tuple[HttpServer, str]) -> None:
    answer = served[0].send(
        b"POST /mcp HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: 99999\r\n\r\nfirst bytes"
    )
    assert answer.startswith(b"HTTP/1.1 401 ")


# --- bodies --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["", "2025-11-25", "2026-07-28"])
@pytest.mark.parametrize(
    "body", [b"", b"nonsense", b"{}", b"[]", b"null", b"1", b"\xff\xfe", b"[" * 50_000, b'{"a":' * 15_000, b'"\\ud800"']
)
async def test_a_body_that_is_no_message_is_a_400(served: tuple[HttpServer, str], version: str, body: bytes) -> None:
    server, token = served
    headers = {"mcp_protocol_version": version} if version else {}
    status, _, answer = server.post(body, token, **headers)
    assert status == 400
    assert sentence(answer)


@pytest.mark.parametrize("version", ["2025-11-25", "2026-07-28"])
@pytest.mark.parametrize(
    ("members", "said"),
    [
        *((f'"id":{identity},"method":"ping"', "id") for identity in ("null", "true", "1.5", "1e999", "{}", "[1]")),
        ('"id":NaN,"method":"ping"', "not JSON"),
        ('"id":1,"method":5', "method"),
        ('"id":1,"method":null', "method"),
        ('"id":1,"method":"ping","params":[]', "params"),
        ('"id":1,"method":"ping","params":"x"', "params"),
        ('"id":1', "neither"),
        ('"result":{}', "neither"),
    ],
)
async def test_a_message_that_cannot_be_answered_is_a_400_that_says_why(
    served: tuple[HttpServer, str], version: str, members: str, said: str
) -> None:
    server, token = served
    session = server.initialize(token)
    headers = {"mcp_protocol_version": version, "mcp_session_id": session}
    status, _, answer = server.post(f'{{"jsonrpc":"2.0",{members}}}'.encode(), token, **headers)
    assert status == 400
    assert said in sentence(answer)


async def test_a_list_of_messages_is_a_400_and_none_of_them_is_handled(served: tuple[HttpServer, str]) -> None:
    server, token = served
    call = {"name": "write_file", "arguments": {"path": "made", "content": "", "task_id": "list"}}
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call}
    status, _, answer = server.post([message, message], token, mcp_session_id=server.initialize(token))
    assert status == 400
    assert "a list" in sentence(answer)


async def test_a_body_that_is_too_large_is_a_413_declared_or_not(served: tuple[HttpServer, str]) -> None:
    server, token = served
    head = f"POST /mcp HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\n"
    declared = server.send(f"{head}content-length: {MAX_BODY + 1}\r\n\r\n".encode())
    assert declared.startswith(b"HTTP/1.1 413 ")
    assert b"http.max_body" in declared
    piece = b"%x\r\n%b\r\n" % (MAX_BODY + 1, b" " * (MAX_BODY + 1))
    chunked = server.send(f"{head}transfer-encoding: chunked\r\n\r\n".encode() + piece + b"0\r\n\r\n")
    assert chunked.startswith(b"HTTP/1.1 413 ")


async def test_bodies_that_never_come_whole_take_bounded_room_and_none_of_others(tmp_path: Path) -> None:
    ada, bob = tokens_for(tmp_path, "ada", "bob")
    size = MAX_HALF_READ_PER_PRINCIPAL // 4
    head = f"POST /mcp HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {ada}\r\nContent-Length: {size}\r\n\r\n"
    half = head.encode() + b"x" * (size - 1)
    with ExitStack() as opened, serving_http(tmp_path, TOKENS) as server:
        slow = [opened.enter_context(server.connect()) for _ in range(5)]
        for connection in slow:
            with suppress(ConnectionError):  # the one that is refused may be closed before all of it is sent
                connection.sendall(half)
        (refused,) = select.select(slow, [], [], 10)[0]
        answer = refused.recv(1 << 16)  # what follows may be a reset, for the server reads no more
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"retry-after: 2" in answer
        assert server.initialize(bob)
        for connection in slow:
            connection.close()
        assert server.initialize(ada)


async def test_a_broken_chunk_is_a_400(served: tuple[HttpServer, str]) -> None:
    server, token = served
    head = f"POST /mcp HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\n"
    assert server.send(f"{head}transfer-encoding: chunked\r\n\r\nzz\r\n".encode()).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("session", ["nope", "a" * 10_000, "../x", "%00"])
async def test_an_unknown_session_is_a_404(served: tuple[HttpServer, str], session: str) -> None:
    server, token = served
    assert server.post(PING, token, mcp_session_id=session)[0] == 404
    assert server.request("GET", "/mcp", authorization=f"Bearer {token}", mcp_session_id=session)[0] == 404
    assert server.request("DELETE", "/mcp", authorization=f"Bearer {token}", mcp_session_id=session)[0] == 404


async def test_an_unknown_version_of_the_protocol_is_a_400_and_a_wrong_method_a_405(
    served: tuple[HttpServer, str],
) -> None:
    server, token = served
    assert server.post(PING, token, mcp_protocol_version="1999-01-01")[0] == 400
    status, headers, _ = server.request("PUT", "/mcp", b"{}", authorization=f"Bearer {token}")
    assert (status, headers["allow"]) == (405, "GET, POST, DELETE")


async def test_a_content_type_that_is_not_json_is_refused(served: tuple[HttpServer, str]) -> None:
    server, token = served
    assert server.post(PING, token, content_type="text/plain")[0] in (400, 415)
    assert server.post(PING, token, accept="text/html")[0] == 406


# --- revocation and scopes -----------------------------------------------------------------------------------------


async def test_a_revoked_token_is_refused_at_once_and_its_open_stream_ends(
    served: tuple[HttpServer, str],
) -> None:
    server, _ = served
    (token,) = tokens_for(server.folder, "bob")
    session = server.initialize(token)
    with server.connect() as stream:
        stream.sendall(
            f"GET /mcp HTTP/1.1\r\nhost: localhost\r\naccept: text/event-stream\r\nauthorization: Bearer {token}\r\n"
            f"mcp-session-id: {session}\r\nconnection: close\r\n\r\n".encode()
        )
        assert stream.recv(4096).startswith(b"HTTP/1.1 200 ")
        TokenFile(server.folder / "tokens.json").revoke([id_of(token)])
        read_all(stream)
    assert server.post(PING, token, mcp_session_id=session)[0] == 401


async def test_a_call_that_the_scopes_do_not_allow_is_a_403_that_names_the_scope(
    served: tuple[HttpServer, str],
) -> None:
    from taskcell.caller import Scope

    server, _ = served
    (token,) = tokens_for(server.folder, "ada", scopes=frozenset({Scope.FILES}))
    session = server.initialize(token)
    status, headers, body = server.post(CALL, token, mcp_session_id=session)
    assert status == 403
    assert 'error="insufficient_scope"' in headers["www-authenticate"]
    assert 'scope="terminal"' in headers["www-authenticate"]
    assert "scope 'terminal'" in sentence(body)


async def test_a_token_without_any_scope_may_nothing(served: tuple[HttpServer, str]) -> None:
    server, _ = served
    (token,) = tokens_for(server.folder, "eve", scopes=frozenset())
    assert server.post(PING, token)[0] == 403


async def test_tokens_that_cannot_be_read_are_a_503_and_the_reason_is_in_the_log_alone(tmp_path: Path) -> None:
    (token,) = tokens_for(tmp_path, "ada")
    with serving_http(tmp_path, TOKENS) as server:
        (tmp_path / "tokens.json").write_text("broken")
        status, headers, body = server.post(PING, token)
        assert (status, headers["retry-after"]) == (503, "10")
        assert "tokens.json" not in body
        assert "tokens.json" in server.log()
        assert server.request()[0] == 200


# --- metrics -------------------------------------------------------------------------------------------------------


async def test_metrics_are_for_admins_and_count_calls_by_principal_tool_and_outcome(
    served: tuple[HttpServer, str],
) -> None:
    from taskcell.caller import ALL_SCOPES

    server, token = served
    (admin,) = tokens_for(server.folder, "root", scopes=ALL_SCOPES)
    assert server.request(path="/metrics")[0] == 401
    status, headers, _ = server.request(path="/metrics", authorization=f"Bearer {token}")
    assert (status, 'scope="admin"' in headers["www-authenticate"]) == (403, True)
    session = server.initialize(token)
    assert server.post(CALL, token, mcp_session_id=session)[0] == 200

    def scraped() -> str:
        status, headers, body = server.request(path="/metrics", authorization=f"Bearer {admin}")
        assert (status, headers["content-type"].partition(";")[0]) == (200, "text/plain")
        return body

    # An answer is on its way before its sandbox is at rest again.
    idle = 'taskcell_sandboxes{profile="terminal",state="idle"} 1.0'
    assert await anyio.to_thread.run_sync(lambda: eventually(lambda: idle in scraped()))
    body = scraped()
    assert 'taskcell_calls_total{outcome="done",principal="ada",tool="terminal"} 1.0' in body
    assert "taskcell_calls_running 0.0" in body
    assert "taskcell_sessions " in body


@pytest.mark.parametrize("kind", ["text/event-stream", "application/x-tar"])
async def test_an_answer_that_the_servers_end_cuts_looks_whole_only_if_it_is_a_stream_of_events(kind: str) -> None:
    begun, sent = anyio.Event(), list[Message]()

    async def endless(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind.encode())]})
        await send({"type": "http.response.body", "body": b"begun", "more_body": True})
        begun.set()
        await anyio.sleep_forever()

    async def nothing() -> Message:
        await anyio.sleep_forever()
        raise AssertionError

    async def take(message: Message) -> None:
        sent.append(message)

    requests = Requests(endless)
    about = {
        "type": "http",
        "method": "GET",
        "http_version": "1.1",
        "path": "/",
        "raw_path": b"/",
        "query_string": b"",
        "headers": [],
    }
    async with anyio.create_task_group() as serving:
        serving.start_soon(requests, about, nothing, take)
        await begun.wait()
        requests.cancel()
    is_ended = sent[-1]["type"] == "http.response.body" and not sent[-1]["more_body"]
    assert is_ended == (kind == "text/event-stream")


async def test_what_a_cluster_asks_of_each_server_is_not_a_request_that_a_service_sends() -> None:
    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        pass

    async def nothing() -> Message:
        raise AssertionError

    async def take(message: Message) -> None:
        pass

    requests = Requests(answer)
    about = {"type": "http", "method": "GET", "http_version": "1.1", "headers": []}
    about |= {"raw_path": b"/", "query_string": b""}
    for path in ("/healthz", "/readyz"):
        await requests({**about, "path": path}, nothing, take)
    assert requests.came == -math.inf
    await requests({**about, "path": "/mcp"}, nothing, take)
    assert requests.came <= anyio.current_time()
    assert requests.came > -math.inf
