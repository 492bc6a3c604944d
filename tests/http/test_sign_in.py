"""JWTs over real HTTP: an authorization server beside a real server, and what clients read to find it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

from http_serving import LOCAL, PATIENCE, serving_http, tokens_for

KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
AUDIENCE = "https://cells.example.org/mcp"
PING = {"jsonrpc": "2.0", "id": 1, "method": "ping"}


@contextmanager
def authorization_server(hangs: threading.Event | None = None) -> Iterator[str]:
    """An address with a JWKS on loopback; it does not answer while `hangs` is set."""
    document = {"keys": [{**json.loads(RSAAlgorithm.to_jwk(KEY.public_key())), "kid": "one"}]}

    class Keys(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            over = time.monotonic() + PATIENCE
            while hangs is not None and hangs.is_set() and time.monotonic() < over:
                time.sleep(0.05)
            body = json.dumps(document).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Keys)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/keys"
    finally:
        if hangs is not None:
            hangs.clear()
        server.shutdown()
        server.server_close()


def configuration(keys: str, more: str = "") -> str:
    return LOCAL + f'[http]\nissuer = "https://login"\naudience = "{AUDIENCE}"\njwks_url = "{keys}"\n{more}'


def signed(subject: str = "ada", **other: Any) -> str:
    claims = {"iss": "https://login", "aud": AUDIENCE, "sub": subject, "exp": int(time.time()) + 300}
    return jwt.encode({**claims, "scope": "terminal files", **other}, KEY, "RS256", {"kid": "one"})


def test_a_client_finds_the_authorization_server_and_its_token_counts(tmp_path: Path) -> None:
    with authorization_server() as keys, serving_http(tmp_path, configuration(keys)) as server:
        status, headers, _ = server.post(PING)
        assert status == 401
        where = "http://127.0.0.1/.well-known/oauth-protected-resource/mcp"
        assert f'resource_metadata="{where}"' in headers["www-authenticate"]
        for path in ("/.well-known/oauth-protected-resource", "/.well-known/oauth-protected-resource/mcp"):
            status, _, body = server.request(path=path)
            metadata = json.loads(body)
            assert (status, metadata["authorization_servers"]) == (200, ["https://login"])
            assert metadata["resource"] == "http://127.0.0.1/mcp"
        session = server.initialize(signed())
        assert server.post(PING, signed(), mcp_session_id=session)[0] == 200
        assert server.post(PING, signed("bob"), mcp_session_id=session)[0] == 404


def test_behind_a_proxy_the_public_address_is_named(tmp_path: Path) -> None:
    with authorization_server() as keys:
        toml = configuration(keys, 'public_url = "https://cells.example.org"\n')
        with serving_http(tmp_path, toml) as server:
            status, headers, _ = server.post(PING, host="cells.example.org")
            assert status == 401
            assert "https://cells.example.org/.well-known/oauth-protected-resource/mcp" in headers["www-authenticate"]
            _, _, body = server.request(path="/.well-known/oauth-protected-resource/mcp", host="cells.example.org")
            assert json.loads(body)["resource"] == "https://cells.example.org/mcp"


def test_tokens_of_both_kinds_count_beside_each_other(tmp_path: Path) -> None:
    (token,) = tokens_for(tmp_path, "bob")
    with (
        authorization_server() as keys,
        serving_http(tmp_path, configuration(keys, 'tokens_file = "tokens.json"')) as server,
    ):
        server.initialize(token)
        server.initialize(signed())


@pytest.mark.parametrize(
    ("claims", "reason"),
    [({"exp": 1}, "expired"), ({"aud": "x"}, "another audience"), ({"iss": "x"}, "another issuer")],
)
def test_a_token_that_does_not_count_is_a_401_with_the_reason(
    tmp_path: Path, claims: dict[str, Any], reason: str
) -> None:
    with authorization_server() as keys, serving_http(tmp_path, configuration(keys)) as server:
        status, headers, body = server.post(PING, signed(**claims))
        assert status == 401
        assert 'error="invalid_token"' in headers["www-authenticate"]
        assert reason in body


def test_an_authorization_server_that_hangs_holds_up_one_request_for_a_bounded_time(tmp_path: Path) -> None:
    hangs = threading.Event()
    hangs.set()
    with authorization_server(hangs) as keys, serving_http(tmp_path, configuration(keys)) as server:
        answers: list[int] = []
        asking = threading.Thread(target=lambda: answers.append(server.post(PING, signed())[0]))
        asking.start()
        assert server.request()[0] == 200
        assert server.post(PING)[0] == 401
        asking.join(PATIENCE)
        assert answers == [503]


@pytest.mark.parametrize("url", ["http://keys.example.org/x", "ftp://x", "nonsense", "https://user:word@x/keys"])
def test_keys_from_an_address_that_others_could_forge_are_a_fault_of_the_configuration(
    tmp_path: Path, url: str
) -> None:
    from taskcell.assembly.invocation import Invocation
    from taskcell.assembly.stack import load_settings
    from taskcell.errors import ConfigError

    (tmp_path / "taskcell.toml").write_text(configuration(url))
    with pytest.raises(ConfigError, match=r"http\.jwks_url: must be an address such as"):
        load_settings(Invocation({"TASKCELL__ENGINE__KIND": "local"}, tmp_path))
