"""A session outlives its connection: what either end has not got is sent again, and nothing is done twice."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from supervisor_driver import PLENTY, TOKEN, WELCOME_SIZE, Client, Closed, Supervisor, until
from taskcell.supervisor import events, requests
from taskcell.supervisor.events import Welcome
from taskcell.supervisor.protocol import SpawnFlag


def begin(client: Client, ttl_ms: int = 0) -> Welcome:
    return client.hello(ttl_ms)


def resume(supervisor: Supervisor, welcome: Welcome, received: int) -> tuple[Client, Welcome]:
    """A new connection that goes on with a session of which so many bytes have come."""
    client = supervisor.connect()
    client.send(requests.hello(TOKEN, 0, welcome.session, received))
    return client, client.wait(Welcome)


def refused(supervisor: Supervisor, *hello: object) -> str:
    with supervisor.connect() as client:
        client.send(requests.hello(*hello))  # type: ignore[arg-type]
        message = client.wait(events.Error).message
        client.wait_closed()
    return message


def test_what_happens_without_a_connection_is_told_on_the_next_one(supervisor: Supervisor, tmp_path: Path) -> None:
    fifo = tmp_path / "go"
    with supervisor.connect() as first:
        welcome = begin(first)
        first.shell(1, f"mkfifo {fifo}; echo ready; read < {fifo}; echo late; exit 3")
        first.wait_output(1, b"ready\n")
        received = first.received
    fifo.write_text("go\n")
    second, again = resume(supervisor, welcome, received)
    with second:
        ended = second.wait(events.Exit, 1)
        assert second.wait(events.Gone, 1)
    assert (again.session, again.flags) == (welcome.session, welcome.flags & ~4)
    assert ended.exit_code == 3
    # The first connection had got "ready".
    late = [event for event in second.events if isinstance(event, events.Output)]
    assert [(event.offset, event.data) for event in late] == [(6, b"late\n")]


def test_what_was_on_its_way_when_the_connection_broke_is_sent_again(supervisor: Supervisor) -> None:
    with supervisor.connect() as first:
        welcome = begin(first)
        first.run(1, "seq", "1000")
        output = first.output(1)
    with_again, _ = resume(supervisor, welcome, 0)
    with with_again as second:
        second.wait(events.Spawned, 1)
        second.wait(events.Exit, 1)
        assert second.output(1) == output


def test_the_supervisor_says_how_much_it_has_served_and_drops_a_frame_that_is_not_whole(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    ping = requests.ping()
    spawn = requests.spawn(1, requests.Spawn([b"sh", b"-c", f"echo ran >> {log}".encode()], {}, b"/", credit=PLENTY))
    with supervisor.connect() as first:
        welcome = begin(first)
        first.send(ping, spawn[:-1])
        first.wait(events.Pong)
        received = first.received
    second, again = resume(supervisor, welcome, received)
    with second:
        assert (welcome.place, again.place) == (0, len(ping))
        second.send(spawn)
        second.wait(events.Gone, 1)
        received += second.received
    third, again = resume(supervisor, welcome, received)
    with third:
        assert again.place == len(ping) + len(spawn)
        third.sync()
    assert log.read_text() == "ran\n"


def test_a_new_session_ends_the_old_one(supervisor: Supervisor) -> None:
    with supervisor.connect() as first:
        welcome = begin(first)
    with supervisor.connect() as second:
        assert begin(second).session != welcome.session
        assert "another connection" in refused(supervisor, TOKEN, 0, welcome.session, 0)
        second.sync()


def test_a_session_is_gone_on_with_by_its_token_alone(supervisor: Supervisor) -> None:
    with supervisor.connect() as first:
        welcome = begin(first)
        assert "token is wrong" in refused(supervisor, b"another token, not known", 0, welcome.session, 0)
        first.sync()


def test_a_supervisor_without_a_session_is_not_claimed_by_one_of_another_life(supervisor: Supervisor) -> None:
    assert "restarted" in refused(supervisor, TOKEN, 0, 1, 0)
    with supervisor.connect() as client:
        assert client.hello().flags & 4


def test_a_connection_that_claims_more_or_less_than_it_can_have_is_refused(supervisor: Supervisor) -> None:
    with supervisor.connect() as first:
        welcome = begin(first)
        first.sync()
        assert "does not fit" in refused(supervisor, TOKEN, 0, welcome.session, first.received + 1)
        first.send(requests.acknowledge(first.received))
        first.sync()
        assert "does not fit" in refused(supervisor, TOKEN, 0, welcome.session, 0)
        first.sync()
        first.send(requests.acknowledge(1 << 40))
        assert "out of bounds" in first.wait(events.Error).message


def test_a_server_that_acknowledges_nothing_gets_a_bounded_amount_and_then_answers_alone(
    supervisor: Supervisor,
) -> None:
    with supervisor.connect() as client:
        begin(client)
        client.acknowledges = False
        client.start(1, "yes")
        # More would have come by then: the process writes without end.
        while client.received < 1 << 20:
            client.sync()
        for _ in range(20):
            client.sync()
        assert client.received < 3 << 20
        kept = client.received
        client.send(requests.acknowledge(client.received))
        until(lambda: client.sync() or client.received > kept + (1 << 18), "more output")


def test_tunnels_outlive_their_connection(supervisor: Supervisor) -> None:
    import socket

    with supervisor.connect() as first:
        welcome = begin(first)
        first.send(requests.listen_on(0, 1))
        port = first.wait(events.Listening).port
        program = socket.create_connection(("127.0.0.1", port))
        tunnel = first.wait(events.TunnelOpened).process
        received = first.received
    program.sendall(b"meanwhile")
    second, _ = resume(supervisor, welcome, received)
    with second, program:
        assert second.wait(events.TunnelData, tunnel).data == b"meanwhile"
        second.send(requests.tunnel_data(tunnel, b"answer"))
        program.settimeout(20)
        assert program.recv(10) == b"answer"


def test_a_lost_connection_counts_from_its_last_byte(supervisor: Supervisor) -> None:
    with supervisor.connect() as client:
        begin(client, ttl_ms=400)
        client.shell(1, "sleep 60")
    assert supervisor.wait() == 0


def test_the_welcomes_size_is_known(supervisor: Supervisor) -> None:
    with supervisor.connect() as client:
        client.send(requests.hello(TOKEN, 0))
        client.wait(Welcome)
        assert client.received == 0
        assert WELCOME_SIZE == 34
        client.send(requests.hello(TOKEN, 0))
        with pytest.raises(Closed):
            client.wait(events.Pong)


def test_a_connection_that_breaks_behind_its_hello_does_not_end_the_session(supervisor: Supervisor) -> None:
    """Its WELCOME cannot be sent; the next connection goes on."""
    with supervisor.connect() as first:
        welcome = begin(first)
        first.shell(1, "read line; echo $line", flags=SpawnFlag.STDIN)
        received = first.received
    os.kill(supervisor.child.pid, signal.SIGSTOP)  # it finds the HELLO and the end together
    with supervisor.connect() as second:
        second.send(requests.hello(TOKEN, 0, welcome.session, received))
    os.kill(supervisor.child.pid, signal.SIGCONT)
    third, again = resume(supervisor, welcome, received)
    with third:
        assert again.session == welcome.session
        third.send(requests.stdin(1, b"goes on\n"))
        assert third.wait_output(1, b"goes on\n") == b"goes on\n"


def test_a_first_connection_that_breaks_behind_its_hello_leaves_the_supervisor_to_the_next(
    supervisor: Supervisor,
) -> None:
    os.kill(supervisor.child.pid, signal.SIGSTOP)
    with supervisor.connect() as first:
        first.send(requests.hello(TOKEN, 0))
    os.kill(supervisor.child.pid, signal.SIGCONT)
    with supervisor.claim() as second:
        assert second.run(1, "true").exit_code == 0
