"""Who may speak to the supervisor, and how it ends."""

from __future__ import annotations

import os
import signal
import socket
import stat
import struct
import subprocess
import time
from pathlib import Path

import pytest

from supervisor_driver import PATH, PATIENCE, PLENTY, SANITIZER, TOKEN, Client, Closed, Supervisor, alive, until
from taskcell.supervisor import events, protocol, requests
from taskcell.supervisor.protocol import ProcessState, Stream, WelcomeFlag

OTHER_TOKEN = b"another-token-of-some-length"


def refusal(client: Client) -> str:
    """The ERROR that comes, after which the connection is closed."""
    message = client.wait(events.Error).message
    client.wait_closed()
    return message


def test_the_first_hello_claims_and_a_later_one_does_not(supervisor: Supervisor) -> None:
    with supervisor.connect() as first:
        assert WelcomeFlag.FIRST_CLAIM in first.hello().flags
    with supervisor.connect() as second:
        welcome = second.hello()
    assert WelcomeFlag.FIRST_CLAIM not in welcome.flags
    assert WelcomeFlag.IS_PID_1 not in welcome.flags
    assert welcome.version == protocol.VERSION


@pytest.mark.parametrize("token", [OTHER_TOKEN, TOKEN[:-1], TOKEN + b"x", TOKEN[:-1] + b"X"])
def test_a_wrong_token_is_refused_and_the_active_connection_goes_on(supervisor: Supervisor, token: bytes) -> None:
    with supervisor.claim() as active, supervisor.connect() as intruder:
        intruder.send(requests.hello(token, 0))
        assert refusal(intruder) == "the token is wrong"
        active.sync()


@pytest.mark.parametrize("size", [0, 15, 65])
def test_a_token_of_a_wrong_size_never_claims(supervisor: Supervisor, size: int) -> None:
    with supervisor.connect() as client:
        client.send(requests.hello(b"x" * size, 0))
        assert "size" in refusal(client)
    with supervisor.connect() as client:
        assert WelcomeFlag.FIRST_CLAIM in client.hello().flags


def test_another_version_is_refused(supervisor: Supervisor) -> None:
    frame = bytearray(requests.hello(TOKEN, 0))
    frame[9] = 1
    with supervisor.connect() as client:
        client.send(bytes(frame))
        assert f"version {protocol.VERSION}" in refusal(client)


def test_a_new_connection_with_the_token_takes_the_place_of_the_old_one(supervisor: Supervisor) -> None:
    with supervisor.claim() as old, supervisor.claim() as new:
        assert "taken this one's place" in refusal(old)
        new.sync()


def test_nothing_is_done_before_hello(supervisor: Supervisor) -> None:
    with supervisor.connect() as client:
        client.send(requests.ping())
        assert refusal(client) == "the first frame must be HELLO"


def test_hello_comes_only_once(supervisor: Supervisor) -> None:
    with supervisor.claim() as client:
        client.send(requests.hello(TOKEN, 0))
        assert refusal(client) == "HELLO came twice"


def test_a_stranger_that_says_nothing_is_dropped_and_disturbs_nobody(supervisor: Supervisor) -> None:
    with supervisor.claim() as active, supervisor.connect() as silent:
        began = time.monotonic()
        active.sync()
        silent.wait_closed()
        assert silent.events == [], "a server that was held up takes it for a stream that broke"
        assert time.monotonic() - began > 4
        active.sync()


def test_many_silent_strangers_do_not_keep_the_server_out(supervisor: Supervisor) -> None:
    with supervisor.claim() as active:
        strangers = [supervisor.connect() for _ in range(12)]
        active.sync()
        with supervisor.claim() as new:
            new.sync()
        for stranger in strangers[:8]:
            stranger.wait_closed()
        for stranger in strangers:
            stranger.close()


def test_a_stranger_may_not_make_the_supervisor_hold_a_large_frame(supervisor: Supervisor) -> None:
    with supervisor.connect() as client:
        client.send(struct.pack("<I", 1 << 20))
        assert "out of bounds" in refusal(client)


@pytest.mark.parametrize(
    ("frame", "fault"),
    [
        (struct.pack("<I", 4), "out of bounds"),
        (struct.pack("<I", protocol.MAX_TO_SUPERVISOR + 1), "out of bounds"),
        (struct.pack("<IBI", 5, max(protocol.Request) + 1, 0), "unknown type"),
        (struct.pack("<IBI", 5, 0x81, 0), "unknown type"),
        (struct.pack("<IBIB", 6, 0x0C, 0, 0), "does not parse"),
        (struct.pack("<IBIB", 6, 0x06, 1, 0), "does not parse"),
        (struct.pack("<IBI", 5 + 65537, 0x03, 1) + bytes(65537), "too large"),
        (struct.pack("<IBIBQ", 14, 0x07, 1, 3, 1), "stream"),
        (struct.pack("<IBIB", 6, 0x05, 1, 0), "signal"),
        (struct.pack("<IBIB", 6, 0x05, 1, 65), "signal"),
        (requests.spawn(0, requests.Spawn([b"true"], {}, b"/")), "number"),
        (requests.sudo(b"1000", b"", 0, protocol.SudoFlag.NONE), "password"),
        (requests.sudo(b"1000", b"x" * 256, 0, protocol.SudoFlag.NONE), "password"),
        (requests.sudo(b"1000", b"two\nlines", 0, protocol.SudoFlag.NONE), "password"),
    ],
)
def test_a_frame_that_is_not_in_the_protocol_ends_the_connection_only(
    supervisor: Supervisor, frame: bytes, fault: str
) -> None:
    with supervisor.claim() as client:
        client.start(7, "sleep", "60")
        client.send(frame)
        assert fault in refusal(client)
    with supervisor.claim() as client:
        client.send(requests.list_processes())
        assert [(e.process, e.state) for e in client.wait(events.Listing).entries] == [(7, ProcessState.RUNNING)]


def test_a_string_with_a_nul_byte_does_not_parse(supervisor: Supervisor) -> None:
    frame = requests.spawn(1, requests.Spawn([b"echo", b"a#b"], {}, b"/")).replace(b"#", b"\0")
    with supervisor.claim() as client:
        client.send(frame)
        assert "does not parse" in refusal(client)


def test_a_number_that_is_in_use_cannot_be_used_again(supervisor: Supervisor) -> None:
    with supervisor.claim() as client:
        client.start(1, "sleep", "60")
        client.spawn(1, "true")
        assert "number" in refusal(client)


def test_frames_may_come_byte_by_byte(supervisor: Supervisor) -> None:
    with supervisor.connect() as client:
        for byte in requests.hello(TOKEN, 0) + requests.ping():
            client.send(bytes([byte]))
        client.wait(events.Welcome)
        client.wait(events.Pong)


def test_requests_about_an_unknown_process_mean_nothing(client: Client) -> None:
    client.send(
        requests.stdin(99, b"abc"), requests.stdin_eof(99), requests.signal(99, 9),
        requests.credit(99, Stream.STDOUT, 1), requests.attach(99, Stream.STDERR, 0, 1),
        requests.forget(99), requests.resize(99, 1, 1), requests.kill(99, 0),
    )  # fmt: skip
    assert client.wait(events.StdinAck) == events.StdinAck(99, 3)
    assert client.wait(events.Killed) == events.Killed(99, protocol.Reason.KILL, 0, 0, 0)
    client.sync()
    assert client.events == []


def test_a_server_that_never_reads_is_dropped(supervisor: Supervisor) -> None:
    with supervisor.claim() as client:
        client.socket.settimeout(PATIENCE)
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            client.socket.sendall(requests.ping() * (16 << 20))
    with supervisor.claim() as client:
        client.sync()


def test_processes_go_on_without_a_connection_and_can_be_taken_up_again(supervisor: Supervisor) -> None:
    with supervisor.claim() as client:
        pid = client.shell(
            3, "echo one; read line; echo $line; echo err >&2; exec sleep 60", flags=protocol.SpawnFlag.STDIN
        )
        client.wait_output(3, b"one\n")
        client.run(4, "sh", "-c", "echo gone; exit 5")
        client.wait(events.Gone, 4)
    with supervisor.claim() as client:
        client.send(requests.list_processes())
        entries = {entry.process: entry for entry in client.wait(events.Listing).entries}
        assert (entries[3].state, entries[3].pid, entries[3].stdout_total) == (ProcessState.RUNNING, pid, 4)
        assert (entries[4].state, entries[4].exit_code, entries[4].stdout_total) == (ProcessState.GONE, 5, 5)
        client.send(requests.stdin(3, b"two\n"))
        client.sync()
        assert not any(isinstance(event, events.Output) for event in client.events), "no credit, no output"
        client.send(requests.attach(3, Stream.STDOUT, 4, 100), requests.attach(3, Stream.STDERR, 0, 100))
        assert client.wait(events.Output, 3) == events.Output(3, Stream.STDOUT, 4, b"two\n")
        assert client.wait(events.Output, 3) == events.Output(3, Stream.STDERR, 0, b"err\n")
        client.send(requests.attach(4, Stream.STDOUT, 0, 100))
        assert client.wait(events.Output, 4).data == b"gone\n"


def test_an_end_that_nobody_saw_is_in_the_listing(supervisor: Supervisor) -> None:
    with supervisor.claim() as client:
        pid = client.start(1, "sh", "-c", "read x; exit 9", flags=protocol.SpawnFlag.STDIN)
        client.send(requests.stdin_eof(1))
    until(lambda: not alive(pid), "the end of the process")
    with supervisor.claim() as client:
        until(lambda: listed(client, 1).state is ProcessState.GONE, "the end in the listing")
        assert listed(client, 1).exit_code == 9


def listed(client: Client, process: int) -> events.ListedProcess:
    client.send(requests.list_processes())
    return next(entry for entry in client.wait(events.Listing).entries if entry.process == process)


def test_the_list_counts_what_is_alive_of_each_tree_at_that_moment(client: Client) -> None:
    client.start(1, "sleep", "60")
    client.shell(2, "for i in 1 2 3; do setsid sleep 60 & done; echo $!; echo up; exit 254")
    last = int(client.wait_output(2, b"up\n").split()[0])
    assert client.wait(events.Exit, 2).descendants == 3
    client.run(3, "true")
    client.wait(events.Gone, 3)
    assert [listed(client, number).alive for number in (1, 2, 3)] == [1, 3, 0]
    os.kill(last, signal.SIGKILL)
    until(lambda: listed(client, 2).alive == 2, "the count of those that are left")
    client.send(requests.kill(2, 0))
    client.wait(events.Killed, 2)
    assert [listed(client, number).alive for number in (1, 2, 3)] == [1, 0, 0]


def test_a_forgotten_process_is_not_listed_and_its_number_is_free(client: Client) -> None:
    client.run(1, "true")
    client.wait(events.Gone, 1)
    client.send(requests.forget(1), requests.list_processes())
    assert client.wait(events.Listing).entries == ()
    client.run(1, "true")


def test_a_running_process_is_forgotten_when_its_tree_is_gone(client: Client) -> None:
    client.start(1, "sleep", "60")
    client.send(requests.forget(1), requests.list_processes())
    assert len(client.wait(events.Listing).entries) == 1
    client.send(requests.kill(1, 0))
    client.wait(events.Exit, 1)
    client.wait(events.Gone, 1)
    client.send(requests.list_processes())
    assert client.wait(events.Listing).entries == ()


def test_at_most_64_finished_processes_are_kept_and_the_oldest_go_first(client: Client) -> None:
    for number in range(1, 71):
        client.run(number, "true")
        client.wait(events.Gone, number)
    client.sync()
    client.send(requests.list_processes())
    assert {entry.process for entry in client.wait(events.Listing).entries} == set(range(7, 71))


def test_shutdown_kills_everything_and_exits(supervisor: Supervisor) -> None:
    with supervisor.claim() as client:
        pids = [client.start(1, "sleep", "60"), client.shell(2, "trap '' TERM; echo up; sleep 60; sleep 60")]
        client.wait_output(2, b"up")
        client.send(requests.shutdown(200))
        assert client.wait(events.Killed, 0).survivors == 0
        assert {client.wait(events.Exit).process, client.wait(events.Exit).process} == {1, 2}
        client.wait_closed()
    assert supervisor.wait() == 0
    assert not any(map(alive, pids))
    assert not supervisor.path.exists()


def mode_of(path: Path) -> int | None:
    try:
        return stat.S_IMODE(path.stat().st_mode)
    except FileNotFoundError:
        return None


def test_one_that_stays_begins_anew_for_another_server(binary: Path, tmp_path: Path) -> None:
    supervisor = Supervisor(binary, tmp_path / "run", options=["--stays"])
    try:
        for number in range(3):
            token = b"%d" % number * 32
            until(lambda: mode_of(supervisor.path) == 0o600, "a supervisor that waits")
            with supervisor.connect() as client:
                assert client.hello(token=token).flags & WelcomeFlag.FIRST_CLAIM
                assert mode_of(supervisor.path) == 0o700
                pid = client.start(1, "sleep", "60")
                client.send(requests.shutdown(200))
                client.wait_closed()
            assert not alive(pid)
    finally:
        supervisor.stop()


def test_one_that_stays_ends_with_its_last_server(binary: Path, tmp_path: Path) -> None:
    supervisor = Supervisor(binary, tmp_path / "run", options=["--stays"])
    try:
        supervisor.claim(ttl_ms=200).close()
        assert supervisor.wait() == 0
    finally:
        supervisor.stop()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_kills_everything_and_exits(supervisor: Supervisor, number: signal.Signals) -> None:
    with supervisor.claim() as client:
        pid = client.shell(1, "sleep 60 & sleep 60")
        supervisor.child.send_signal(number)
        client.wait(events.Exit, 1)
        assert supervisor.wait() == 0
    assert not alive(pid)


def test_nothing_is_started_any_more_while_everything_is_killed(supervisor: Supervisor) -> None:
    with supervisor.claim() as client:
        client.shell(1, "trap '' TERM; echo up; sleep 60; sleep 60")
        client.wait_output(1, b"up")
        client.send(requests.kill(0, 300))
        client.spawn(2, "true")
        assert client.wait(events.Failed, 2).stage is protocol.FailedStage.REQUEST
        client.wait(events.Killed, 0)
        client.run(3, "true")


def test_without_a_server_for_the_orphan_ttl_everything_is_killed(supervisor: Supervisor) -> None:
    with supervisor.claim(ttl_ms=2500) as client:
        pid = client.shell(1, "setsid sleep 60 & sleep 60")
        end = time.monotonic() + 3  # longer than the time to live: what the server sends holds it off
        while time.monotonic() < end:
            client.sync()
            time.sleep(0.05)
    assert supervisor.wait() == 0
    assert not alive(pid)


def test_a_server_that_says_nothing_counts_as_gone_though_its_connection_stands(supervisor: Supervisor) -> None:
    with supervisor.claim(ttl_ms=500) as client:
        # What comes from the sandbox does not count: it goes into a connection whose other end may be gone.
        client.send(requests.spawn(1, requests.Spawn([b"yes"], {b"PATH": PATH}, b"/", credit=PLENTY)))
        assert supervisor.wait() == 0


def test_a_supervisor_that_no_server_claims_in_time_ends(binary: Path, tmp_path: Path) -> None:
    waiting = Supervisor(binary, tmp_path / "unclaimed", options=("--claim", "300"))
    assert waiting.wait() == 0
    waiting.stop()


def test_a_supervisor_that_was_claimed_in_time_stays(binary: Path, tmp_path: Path) -> None:
    claimed = Supervisor(binary, tmp_path / "claimed", options=("--claim", "3500"))
    with claimed.claim() as client:
        time.sleep(4)  # longer than it waits for a server
        client.sync()
    claimed.stop()


def test_a_connection_that_comes_back_in_time_keeps_the_supervisor(supervisor: Supervisor) -> None:
    supervisor.claim(ttl_ms=3500).close()
    with supervisor.claim(ttl_ms=0):
        pass
    with pytest.raises(subprocess.TimeoutExpired):
        supervisor.child.wait(4)


def test_a_dead_supervisor_takes_its_processes_along(supervisor: Supervisor) -> None:
    with supervisor.claim() as client:
        pid = client.shell(1, "setsid sleep 60 & echo $!; sleep 60")
        other = int(client.wait_output(1, b"\n"))
        supervisor.child.kill()
        supervisor.wait()
        until(lambda: not alive(pid) and not alive(other), "the end of the tree")


def test_the_sockets_folder_must_be_private(binary: Path, tmp_path: Path) -> None:
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(0o755)
    command = [binary, "init", "--socket", folder / "s"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 1
    assert "needs a private folder" in done.stderr


def test_the_socket_and_a_folder_that_it_makes_are_private(binary: Path, tmp_path: Path) -> None:
    path = tmp_path / "new" / "s"
    command = [binary, "init", "--socket", path]
    with subprocess.Popen(command, env=os.environ | SANITIZER) as child:
        until(path.exists, "the socket")
        assert path.parent.stat().st_mode & 0o777 == 0o700
        assert path.stat().st_mode & 0o777 == 0o600
        child.terminate()
        assert child.wait(PATIENCE) == 0


def test_a_socket_that_a_killed_supervisor_left_is_taken_over(supervisor: Supervisor, binary: Path) -> None:
    supervisor.child.kill()
    supervisor.wait()
    assert supervisor.path.exists()
    again = Supervisor(binary, supervisor.path.parent)
    with again.claim() as client:
        client.sync()
    again.stop()


def test_a_socket_that_is_in_use_is_not_taken(supervisor: Supervisor, binary: Path) -> None:
    command = [binary, "init", "--socket", supervisor.path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 1
    assert "in use" in done.stderr
    with supervisor.claim() as client:
        client.sync()


def bridge(supervisor: Supervisor) -> tuple[Client, subprocess.Popen[bytes]]:
    ours, its = socket.socketpair()
    child = subprocess.Popen([supervisor.binary, "connect", "--socket", supervisor.path], stdin=its, stdout=its)
    its.close()
    return Client(ours), child


def test_the_bridge_carries_a_session_and_ends_with_its_input(supervisor: Supervisor) -> None:
    client, child = bridge(supervisor)
    client.hello()
    client.start(1, "sh", "-c", "head -c 3000000 /dev/zero")
    client.wait(events.Gone, 1)
    assert client.output(1) == bytes(3000000)
    client.socket.shutdown(socket.SHUT_WR)
    assert child.wait(PATIENCE) == 0
    client.close()


def test_the_bridge_ends_with_the_supervisor(supervisor: Supervisor) -> None:
    client, child = bridge(supervisor)
    client.hello()
    client.send(requests.shutdown(0))
    client.wait(events.Killed, 0)
    with pytest.raises(Closed):
        client.wait(events.Pong)
    assert child.wait(PATIENCE) == 0
    client.close()


def test_the_bridge_says_when_there_is_no_supervisor(binary: Path, tmp_path: Path) -> None:
    command = [binary, "connect", "--socket", tmp_path / "none"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 1
    assert "cannot connect" in done.stderr


def test_the_version_and_bad_usage(binary: Path) -> None:
    done = subprocess.run([binary, "version"], capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (done.returncode, done.stdout) == (0, "supervisor 3\n")
    for words in (
        [],
        ["init"],
        ["init", "--sock", "x"],
        ["dance", "--socket", "x"],
        ["connect", "--socket", "x", "--claim", "1"],
    ):
        assert subprocess.run([binary, *words], capture_output=True, timeout=PATIENCE, check=False).returncode == 2
