"""`taskcell serve` as a process: what a client, good or bad, sees of it, and what is left when it ends."""

import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp_types import CallToolResult

from asking import ASKED, fields_of, text_of
from observe import alive, eventually, marker
from raw_client import LOCAL, MUST_END, PATIENCE, RawClient, command, raw_client
from serving import serving
from taskcell.mcp.transport.lines import MAX_LINE

SECRET = "not-for-commands"
#: A command that ignores the polite signal, with a child that left its session.
STUBBORN = "trap '' TERM; setsid sleep {mark} & sleep {mark}"


def initialize(identity: int = 1) -> dict[str, Any]:
    params = {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "raw", "version": "1"},
    }
    return {"jsonrpc": "2.0", "id": identity, "method": "initialize", "params": params}


def start_sleeping(client: RawClient, mark: str, line: str = "sleep {mark}") -> int:
    """Start a command and wait until each `sleep` in it runs on the host."""
    identity = client.start_command(line.format(mark=mark))
    count = line.count("{mark}")
    runs = eventually(lambda: sum(found.startswith("sleep ") for found in alive(mark)) == count)
    assert runs, client.heard_so_far()
    return identity


# --- both eras, with the official client ---------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize("mode", ["legacy", "auto", "2026-07-28"])
async def test_a_command_runs_and_its_answer_has_text_and_structure(tmp_path: Path, mode: str) -> None:
    with anyio.fail_after(PATIENCE):
        async with serving(tmp_path, LOCAL, mode=mode) as (client, _):
            call = {"command": "echo out; echo err >&2; exit 3", "task_id": "t"}
            result = await client.call_tool("terminal", call)
            asked = await client.call_tool("terminal", call, meta=ASKED)
    assert (result.is_error, asked.is_error) == (False, False)
    assert result.structured_content is None
    assert text_of(result).startswith("out\nerr\n[exit 3 in ")
    expected = {"status": "exited", "exit_code": 3, "stdout": "out\nerr\n", "stderr": "", "task_id": "t"}
    assert expected.items() <= fields_of(asked).items()
    assert text_of(asked).startswith("[exit 3 in ")


@pytest.mark.anyio
@pytest.mark.parametrize("mode", ["legacy", "2026-07-28"])
async def test_the_client_leaving_kills_what_runs_and_the_server_ends_by_itself(tmp_path: Path, mode: str) -> None:
    mark = marker()
    with anyio.fail_after(PATIENCE):
        async with serving(tmp_path, LOCAL, mode=mode) as (client, _), anyio.create_task_group() as calls:
            calls.start_soon(client.call_tool, "terminal", {"command": f"sleep {mark}"})
            await anyio.to_thread.run_sync(lambda: eventually(lambda: bool(alive(mark))))
            calls.cancel_scope.cancel()
    assert eventually(lambda: not alive(mark))


@pytest.mark.anyio
@pytest.mark.parametrize("mode", ["legacy", "2026-07-28"])
async def test_calls_run_at_the_same_time(tmp_path: Path, mode: str) -> None:
    results: list[CallToolResult] = []
    with anyio.fail_after(PATIENCE):
        async with serving(tmp_path, LOCAL, mode=mode) as (client, _), anyio.create_task_group() as calls:

            async def wait_for_the_others() -> None:
                line = "until [ -e one ] && [ -e two ]; do sleep 0.02; done; echo seen"
                results.append(await client.call_tool("terminal", {"command": line}))

            calls.start_soon(wait_for_the_others)
            calls.start_soon(client.call_tool, "terminal", {"command": "touch one"})
            calls.start_soon(client.call_tool, "terminal", {"command": "touch two"})
    assert text_of(results[0]).startswith("seen")


@pytest.mark.anyio
async def test_text_of_every_kind_survives_the_way_there_and_back(tmp_path: Path) -> None:
    words = 'NUL-free \U0001f600 "quotes" \\ \u2028 '
    with anyio.fail_after(PATIENCE):
        async with serving(tmp_path, LOCAL) as (client, _):
            echoed = await client.call_tool("terminal", {"command": "cat", "stdin": words + "\x1b[31m"}, meta=ASKED)
            broken = await client.call_tool("terminal", {"command": r"printf 'a\377b\000c\355\240\200d'"}, meta=ASKED)
    assert fields_of(echoed)["stdout"] == words
    # No NUL: one that got into a client's history has ended its session for good.
    assert fields_of(broken)["stdout"] == "a\ufffdb␀c\ufffd\ufffd\ufffdd"


# --- bytes that no good client sends -------------------------------------------------------------------------------


def test_garbage_is_answered_line_by_line_and_the_server_lives_on(tmp_path: Path) -> None:
    with raw_client(tmp_path) as client:
        client.shake_hands()
        client.say(b"garbage\n\n   \n[]\n\xff\xfe\n" + b'{"jsonrpc":"2.0","id":9,"method":5}\n')
        answers = [client.hear() for _ in range(4)]
        assert [answer["error"]["code"] for answer in answers] == [-32700, -32600, -32700, -32600]
        assert [answer["id"] for answer in answers] == [None, None, None, 9]
        assert client.ask("tools/list")["result"]["tools"]


def test_garbage_before_the_first_request_is_answered_too(tmp_path: Path) -> None:
    with raw_client(tmp_path) as client:
        client.say(b"what is this\n")
        assert client.hear()["error"]["code"] == -32700
        assert client.shake_hands()["serverInfo"]["name"] == "taskcell"


def test_an_old_clients_batch_is_answered_message_by_message_and_a_poor_handshake_works(tmp_path: Path) -> None:
    """Of all revisions only 2025-03-26 has batches. Clients written by hand forget what the handshake must have."""
    with raw_client(tmp_path) as client:
        answer = client.ask("initialize", protocolVersion="2025-03-26")
        assert answer["result"]["protocolVersion"] == "2025-03-26"
        called = {"name": "terminal", "arguments": {"command": "echo works"}}
        client.say(
            json.dumps(
                [
                    {"jsonrpc": "2.0", "method": "notifications/initialized"},
                    {"jsonrpc": "2.0", "id": "a", "method": "tools/call", "params": called},
                    {"jsonrpc": "2.0", "id": 2**70, "method": "ping"},
                    {"jsonrpc": "2.0", "id": 1.5, "method": "ping"},
                ]
            ).encode()
            + b"\n"
        )
        answers = {found["id"]: found for found in (client.hear() for _ in range(3))}
        assert "works" in str(answers["a"]["result"])
        assert answers[2**70]["result"] == {}
        assert answers[None]["error"]["code"] == -32600


def test_a_huge_line_is_refused_and_the_server_lives_on(tmp_path: Path) -> None:
    with raw_client(tmp_path) as client:
        client.shake_hands()
        client.say(b'{"jsonrpc":"2.0","id":1,"method":"' + b"x" * (MAX_LINE + 1000) + b'"}\n')
        refusal = client.hear()
        assert (refusal["id"], refusal["error"]["code"]) == (1, -32700)
        assert client.ask("tools/list")["result"]["tools"]


def test_a_call_before_the_handshake_is_an_error_and_the_handshake_still_works(tmp_path: Path) -> None:
    with raw_client(tmp_path) as client:
        assert "error" in client.ask("tools/list")
        assert client.shake_hands()["protocolVersion"] == "2025-11-25"


def test_an_unknown_method_is_method_not_found(tmp_path: Path) -> None:
    with raw_client(tmp_path) as client:
        client.shake_hands()
        assert client.ask("tools/explode")["error"]["code"] == -32601


@pytest.mark.parametrize("arguments", [{"command": 5}, {"command": "ls", "nonsense": 1}, {"command": "a\0b"}])
def test_bad_arguments_are_told_in_the_result(tmp_path: Path, arguments: dict[str, Any]) -> None:
    with raw_client(tmp_path) as client:
        client.shake_hands()
        result = client.ask("tools/call", name="terminal", arguments=arguments)["result"]
        assert result["isError"] is True
        assert result["content"][0]["text"]


def test_without_an_engine_the_server_still_answers_and_says_what_to_do(tmp_path: Path) -> None:
    toml = f'[engine]\nhost = "unix://{tmp_path}/none.sock"\n'
    with raw_client(tmp_path, toml) as client:
        client.shake_hands()
        assert client.ask("tools/list")["result"]["tools"]
        result = client.run_command("true")
        assert result["isError"] is True
        assert "No container engine answers" in result["content"][0]["text"]
        client.end_input()
        assert client.exit_code() == 0


# --- cancel and the ends -------------------------------------------------------------------------------------------


def test_a_cancelled_call_is_killed_gets_no_answer_and_the_server_lives_on(tmp_path: Path) -> None:
    mark = marker()
    with raw_client(tmp_path) as client:
        client.shake_hands()
        identity = start_sleeping(client, mark)
        cancelled = {"requestId": identity, "reason": "enough"}
        client.say({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": cancelled})
        assert eventually(lambda: not alive(mark))
        assert client.run_command("echo on")["structuredContent"]["stdout"] == "on\n"


def test_the_end_of_input_kills_what_runs_and_ends_the_server_with_code_0(tmp_path: Path) -> None:
    mark = marker()
    with raw_client(tmp_path) as client:
        client.shake_hands()
        start_sleeping(client, mark)
        client.end_input()
        assert client.exit_code() == 0
    assert not alive(mark)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_kills_what_runs_and_ends_the_server_with_code_0(tmp_path: Path, number: int) -> None:
    mark = marker()
    with raw_client(tmp_path) as client:
        client.shake_hands()
        start_sleeping(client, mark)
        client.process.send_signal(number)
        assert client.exit_code() == 0
    assert not alive(mark)


def test_even_what_ignores_the_polite_signal_is_gone_in_time(tmp_path: Path) -> None:
    mark = marker()
    with raw_client(tmp_path) as client:
        client.shake_hands()
        start_sleeping(client, mark, STUBBORN)
        client.process.terminate()
        assert client.exit_code() == 0
    assert not alive(mark)


def test_a_second_signal_ends_the_server_at_once(tmp_path: Path) -> None:
    mark = marker()
    with raw_client(tmp_path) as client:
        client.shake_hands()
        start_sleeping(client, mark, STUBBORN)
        client.process.terminate()
        assert eventually(lambda: "SIGTERM" in client.log.read_text())
        client.process.terminate()
        assert client.exit_code() == 128 + signal.SIGTERM
        assert "orphan_ttl" in client.log.read_text()


def test_a_signal_while_the_interpreter_ends_does_not_spoil_the_exit_code(tmp_path: Path) -> None:
    """Hosts give a server two seconds after the end of its input, and on a busy machine it may be at this point."""
    at_exit = "import atexit, os, signal; atexit.register(os.kill, os.getpid(), signal.SIGTERM)"
    program = f"{at_exit}; from taskcell.__main__ import main; main()"
    _, _, _, *words = command(tmp_path)
    client = RawClient([sys.executable, "-c", program, *words], tmp_path)
    client.shake_hands()
    client.end_input()
    assert client.exit_code(PATIENCE) == 0


def test_a_signal_ends_an_idle_server_and_one_that_nobody_has_spoken_to(tmp_path: Path) -> None:
    with raw_client(tmp_path) as client:
        client.shake_hands()
        client.process.terminate()
        assert client.exit_code() == 0
    with raw_client(tmp_path) as client:
        client.say(b"not yet\n")
        client.hear()
        client.process.terminate()
        assert client.exit_code() == 0


@pytest.mark.parametrize("says", [b'{"jsonrpc":"2.0","id":3,"method":"ping"}\n', b""], ids=["a ping", "nothing"])
def test_a_client_that_closes_its_reading_end_ends_the_server_with_code_0(tmp_path: Path, says: bytes) -> None:
    mark = marker()
    read, write = os.pipe()
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen(command(tmp_path), stdin=subprocess.PIPE, stdout=write, stderr=log)
    os.close(write)
    assert server.stdin is not None
    server.stdin.write(json.dumps(initialize()).encode() + b"\n")
    server.stdin.flush()
    assert os.read(read, 1)
    call = {"name": "terminal", "arguments": {"command": f"sleep {mark}"}}
    for message in ({"method": "notifications/initialized"}, {"id": 2, "method": "tools/call", "params": call}):
        server.stdin.write(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")
    server.stdin.flush()
    assert eventually(lambda: bool(alive(mark)))
    os.close(read)
    server.stdin.write(says)
    with suppress(BrokenPipeError):  # it may have ended by now
        server.stdin.flush()
    try:
        assert server.wait(MUST_END) == 0
    finally:
        server.kill()
        server.wait()
        with suppress(BrokenPipeError):
            server.stdin.close()
    assert not alive(mark)


def test_nothing_is_written_after_the_end_of_input(tmp_path: Path) -> None:
    mark = marker()
    with raw_client(tmp_path) as client:
        client.shake_hands()
        # The first ends while the server does, the second is killed by it: neither is answered any more.
        client.start_command("sleep 0.2")
        start_sleeping(client, mark)
        client.heard_so_far()
        client.end_input()
        assert client.exit_code() == 0
        assert not client.unheard()


@pytest.mark.parametrize(
    ("tool", "arguments", "name"),
    [
        ("terminal", {"command": "echo \ud800"}, "'command'"),
        ("terminal", {"command": "true", "env": {"A": "\udfff"}}, "'env.A'"),
        ("terminal", {"command": "true", "task_id": "\ud800"}, "'task_id'"),
        ("terminal", {"command": "true", "\ud800": 1}, "'\ufffd'"),
        ("write_file", {"path": "a", "content": "\ud83d\ude00\ud83d"}, "'content'"),
        ("read_file", {"path": "\ud800"}, "'path'"),
        ("list_files", {"glob": "\ud800"}, "'glob'"),
        ("process", {"action": "\ud800"}, "'action'"),
    ],
)
def test_half_of_a_surrogate_pair_in_an_argument_is_a_sentence_of_the_tool(
    tmp_path: Path, tool: str, arguments: dict[str, Any], name: str
) -> None:
    with raw_client(tmp_path) as client:
        client.shake_hands()
        result = client.ask("tools/call", name=tool, arguments=arguments)["result"]
        assert result["isError"]
        (content,) = result["content"]
        assert name in content["text"]
        assert content["text"].count(".") <= 2
        assert client.run_command("echo on")["structuredContent"]["stdout"] == "on\n"


def test_the_id_of_a_running_call_is_refused_and_the_call_stays_cancellable(tmp_path: Path) -> None:
    mark = marker()
    with raw_client(tmp_path) as client:
        client.shake_hands()
        identity = start_sleeping(client, mark)
        again = {"name": "terminal", "arguments": {"command": f"sleep {mark}"}}
        client.say({"jsonrpc": "2.0", "id": identity, "method": "tools/call", "params": again})
        refusal = client.hear()
        assert (refusal["id"], refusal["error"]["code"]) == (identity, -32600)
        assert len([found for found in alive(mark) if found.startswith("sleep ")]) == 1
        client.say({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": identity}})
        assert eventually(lambda: not alive(mark))
        assert client.run_command("echo on")["structuredContent"]["stdout"] == "on\n"


def test_requests_from_a_file_are_answered_before_the_end(tmp_path: Path) -> None:
    messages = [initialize(), {"jsonrpc": "2.0", "method": "notifications/initialized"}]
    messages.append({"jsonrpc": "2.0", "id": 2, "method": "tools/list"})
    (tmp_path / "in").write_text("".join(json.dumps(message) + "\n" for message in messages))
    with (tmp_path / "in").open("rb") as requests:
        done = subprocess.run(command(tmp_path), stdin=requests, capture_output=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [answer["id"] for answer in answers] == [1, 2]
    assert answers[1]["result"]["tools"]


@pytest.mark.parametrize("source", [os.devnull, "closed"])
def test_without_any_input_the_server_ends_at_once_and_says_why(tmp_path: Path, source: str) -> None:
    if source == "closed":
        shell = ["sh", "-c", 'exec "$@" <&-', "sh"]
        done = subprocess.run([*shell, *command(tmp_path)], capture_output=True, timeout=PATIENCE, check=False)
        assert done.returncode == 1
        assert b"MCP client" in done.stderr
    else:
        with Path(source).open("rb") as empty:
            done = subprocess.run(command(tmp_path), stdin=empty, capture_output=True, timeout=PATIENCE, check=False)
        assert done.returncode == 0
    assert done.stdout == b""


def test_a_faulty_configuration_is_one_sentence_on_standard_error_and_nothing_on_the_protocol(tmp_path: Path) -> None:
    arguments = command(tmp_path, '[engine]\nkid = "local"\n')
    done = subprocess.run(arguments, stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE, check=False)
    assert done.returncode == 1
    assert done.stdout == b""
    assert b"kid" in done.stderr
    assert b"Traceback" not in done.stderr


def test_the_log_names_the_configuration_and_the_manifests_in_use(tmp_path: Path) -> None:
    arguments = command(tmp_path, 'manifests = ["skills"]\n' + LOCAL)
    (tmp_path / "skills").mkdir()
    done = subprocess.run(arguments, stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0
    for path in ("taskcell.toml", "skills"):
        assert f"{tmp_path}/{path}".encode() in done.stderr


def test_a_standard_error_that_nobody_reads_does_not_stop_the_server(tmp_path: Path) -> None:
    arguments = command(tmp_path)
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        count = 3000
        feed = json.dumps(initialize()).encode() + b"\n" + b"garbage\n" * count

        def write() -> None:
            assert server.stdin is not None
            server.stdin.write(feed)
            server.stdin.flush()

        writing = threading.Thread(target=write, daemon=True)
        writing.start()
        answers = [json.loads(server.stdout.readline()) for _ in range(count + 1)]
        writing.join(PATIENCE)
        server.stdin.close()
        assert server.wait(MUST_END) == 0
    assert sum("error" in answer for answer in answers) == count


def test_commands_inherit_neither_the_protocol_nor_the_servers_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SERVER_SECRET", SECRET)
    with raw_client(tmp_path) as client:
        pipes = {os.readlink(f"/proc/{client.process.pid}/fd/{fd}") for fd in (0, 1)}
        client.shake_hands()
        listing = client.run_command("ls -l /proc/self/fd; env")["structuredContent"]["stdout"]
        assert all(pipe.startswith("pipe:") for pipe in pipes)
        assert not any(pipe in listing for pipe in pipes)
        assert SECRET not in listing


def test_the_module_runs_as_the_installed_command_does() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "taskcell", "--version"], capture_output=True, timeout=PATIENCE, check=False, text=True
    )
    assert (done.returncode, done.stdout.split()[0]) == (0, "taskcell")
