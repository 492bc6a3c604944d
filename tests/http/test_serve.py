"""`taskcell serve --http` as a process: both eras with the official client, signals, and clients that leave."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import anyio
import pytest
from mcp_types import CallToolResult, TextContent

from http_serving import ERAS, LOCAL, MUST_END, PATIENCE, TOKENS, serving_http, tokens_for
from observe import alive, eventually, marker


def text_of(result: CallToolResult) -> str:
    return "".join(block.text for block in result.content if isinstance(block, TextContent))


@pytest.mark.anyio
@pytest.mark.parametrize("mode", ERAS)
async def test_a_client_of_either_era_runs_commands_and_gets_progress(tmp_path: Path, mode: str) -> None:
    heard: list[str] = []

    async def hear(done: float, total: float | None, message: str | None) -> None:
        heard.append(message or "")

    with anyio.fail_after(PATIENCE), serving_http(tmp_path) as server:
        async with server.client(mode=mode) as client:
            assert "terminal" in [tool.name for tool in (await client.list_tools()).tools]
            line = "echo first; sleep 0.5; echo last; exit 3"
            result = await client.call_tool("terminal", {"command": line}, progress_callback=hear)
        assert "first\nlast\n[exit 3 in " in text_of(result)
        assert any("first" in message for message in heard)
        assert server.end() == 0


@pytest.mark.anyio
async def test_clients_of_both_eras_share_a_task_of_one_principal(tmp_path: Path) -> None:
    with anyio.fail_after(PATIENCE), serving_http(tmp_path) as server:
        async with server.client(mode="legacy") as one, server.client() as two:
            await one.call_tool("write_file", {"path": "shared", "content": "seen", "task_id": "t"})
            result = await two.call_tool("terminal", {"command": "cat shared", "task_id": "t"})
        assert text_of(result).startswith("seen\n")


@pytest.mark.anyio
@pytest.mark.parametrize("mode", ERAS)
async def test_sigterm_ends_what_runs_answers_it_and_exits_0_in_time_with_clients_connected(
    tmp_path: Path, mode: str
) -> None:
    mark, answers = marker(), list[CallToolResult]()
    with anyio.fail_after(PATIENCE), serving_http(tmp_path) as server:
        async with server.client(mode=mode) as client, anyio.create_task_group() as calls:
            await client.list_tools()

            async def call() -> None:
                line = f"echo partial; sleep {mark}"
                answers.append(await client.call_tool("terminal", {"command": line}))

            calls.start_soon(call)
            await anyio.to_thread.run_sync(lambda: eventually(lambda: bool(alive(mark))))
            began = time.monotonic()
            server.process.send_signal(signal.SIGTERM)
            code = await anyio.to_thread.run_sync(lambda: server.process.wait(MUST_END))
            assert time.monotonic() - began < MUST_END
        assert code == 0, server.log()
    assert eventually(lambda: not alive(mark))
    (answer,) = answers
    assert text_of(answer).startswith("partial\n[killed")


@pytest.mark.anyio
async def test_a_new_request_while_the_server_closes_is_told_to_come_back(tmp_path: Path) -> None:
    mark = marker()
    with anyio.fail_after(PATIENCE), serving_http(tmp_path) as server:
        async with server.client() as client, anyio.create_task_group() as calls:
            await client.list_tools()
            stubborn = f"trap '' TERM; sleep {mark} & sleep {mark}; wait"
            calls.start_soon(client.call_tool, "terminal", {"command": stubborn})
            await anyio.to_thread.run_sync(lambda: eventually(lambda: len(alive(mark)) > 1))
            server.process.send_signal(signal.SIGTERM)
            await anyio.to_thread.run_sync(lambda: eventually(lambda: "A signal" in server.log()))
            status, headers, body = await anyio.to_thread.run_sync(server.request)
            assert (status, headers["retry-after"]) == (503, "10")
            assert "closing" in body
        assert server.process.wait(MUST_END) == 0


@pytest.mark.anyio
async def test_a_closed_stream_of_the_later_era_kills_the_command(tmp_path: Path) -> None:
    mark = marker()
    with anyio.fail_after(PATIENCE), serving_http(tmp_path) as server:
        async with server.client() as client, anyio.create_task_group() as calls:
            calls.start_soon(client.call_tool, "terminal", {"command": f"sleep {mark}"})
            await anyio.to_thread.run_sync(lambda: eventually(lambda: bool(alive(mark))))
            calls.cancel_scope.cancel()
        assert await anyio.to_thread.run_sync(lambda: eventually(lambda: not alive(mark)))


@pytest.mark.anyio
async def test_a_cancelled_request_of_the_handshakes_era_kills_the_command_and_the_session_goes_on(
    tmp_path: Path,
) -> None:
    mark = marker()
    with anyio.fail_after(PATIENCE), serving_http(tmp_path) as server:
        async with server.client(mode="legacy") as client:
            async with anyio.create_task_group() as calls:
                calls.start_soon(client.call_tool, "terminal", {"command": f"sleep {mark}"})
                await anyio.to_thread.run_sync(lambda: eventually(lambda: bool(alive(mark))))
                calls.cancel_scope.cancel()
            assert await anyio.to_thread.run_sync(lambda: eventually(lambda: not alive(mark)))
            assert text_of(await client.call_tool("terminal", {"command": "echo on"})).startswith("on\n")


def head_of(method: str, length: int, **headers: str) -> bytes:
    kinds = {"content_type": "application/json", "accept": "application/json, text/event-stream"}
    sent = {"host": "127.0.0.1", **kinds, "content_length": str(length), **headers}
    lines = [f"{method} /mcp HTTP/1.1", *(f"{name.replace('_', '-')}: {value}" for name, value in sent.items())]
    return "\r\n".join([*lines, "", ""]).encode()


def call_of(identity: int, name: str, **arguments: object) -> bytes:
    params = {"name": name, "arguments": arguments, "_meta": {"progressToken": "p"}}
    return json.dumps({"jsonrpc": "2.0", "id": identity, "method": "tools/call", "params": params}).encode()


def hear_until(connection: socket.socket, word: bytes) -> str:
    heard = b""
    while word not in heard:
        piece = connection.recv(4096)
        assert piece, heard
        heard += piece
    return heard.decode()


def test_a_client_that_loses_its_connection_gets_its_answer_by_coming_back_or_by_process(tmp_path: Path) -> None:
    with serving_http(tmp_path) as server:
        own = {"mcp_session_id": server.initialize(), "mcp_protocol_version": "2025-11-25"}
        body = call_of(7, "terminal", command="sleep 1; echo over", task_id="t")
        with server.connect() as connection:
            connection.sendall(head_of("POST", len(body), **own) + body)
            heard = hear_until(connection, b"data: ")
        event = next(line[4:] for line in heard.splitlines() if line.startswith("id: "))
        with server.connect() as again:
            again.sendall(head_of("GET", 0, last_event_id=event, **own))
            assert "over" in hear_until(again, b'"id":7')
        body = call_of(8, "process", action="poll", process_id="p1", task_id="t")
        with server.connect() as connection:
            connection.sendall(head_of("POST", len(body), **own) + body)
            assert "over" in hear_until(connection, b'"id":8')


@pytest.mark.anyio
async def test_an_answer_that_nobody_reads_stops_no_other_client(tmp_path: Path) -> None:
    with anyio.fail_after(PATIENCE), serving_http(tmp_path) as server:
        body = call_of(1, "terminal", command="yes | head -c 50000000")
        with server.connect() as connection:
            connection.sendall(head_of("POST", len(body), mcp_session_id=server.initialize()) + body)
            async with server.client(mode="legacy") as other:
                for _ in range(5):
                    assert "on" in text_of(await other.call_tool("terminal", {"command": "echo on"}))


def test_a_server_that_others_could_reach_without_signing_in_does_not_start(tmp_path: Path) -> None:
    config = tmp_path / "taskcell.toml"
    config.write_text(LOCAL)
    command = [sys.executable, "-m", "taskcell", "serve", "--http", "0.0.0.0:0", "--config", str(config)]
    done = subprocess.run(command, capture_output=True, check=False, text=True, timeout=PATIENCE, cwd=tmp_path)
    assert done.returncode == 1
    assert "Everyone who reaches 0.0.0.0 could run commands" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_server_that_asks_for_tokens_may_listen_everywhere(tmp_path: Path) -> None:
    tokens_for(tmp_path, "ada")
    with serving_http(tmp_path, TOKENS, host="0.0.0.0") as server:
        assert server.request()[0] == 200
        assert "let clients reach the server through a proxy with TLS" in server.log()


@pytest.mark.parametrize("place", ["x", "127.0.0.1:", "127.0.0.1:99999", "::1:80:x"])
def test_a_place_that_is_none_is_bad_usage(tmp_path: Path, place: str) -> None:
    command = [sys.executable, "-m", "taskcell", "serve", "--http", place]
    (tmp_path / "taskcell.toml").write_text("manifests = []\n")
    done = subprocess.run(command, capture_output=True, check=False, text=True, timeout=PATIENCE, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert "[HOST:]PORT" in done.stderr


def test_a_port_that_is_taken_is_one_sentence(tmp_path: Path) -> None:
    with serving_http(tmp_path) as server:
        config = str(tmp_path / "taskcell.toml")
        command = [sys.executable, "-m", "taskcell", "serve", "--http", str(server.port), "--config", config]
        done = subprocess.run(command, capture_output=True, check=False, text=True, timeout=PATIENCE, cwd=tmp_path)
        assert done.returncode == 1
        assert f"cannot listen on 127.0.0.1, port {server.port}" in done.stderr
