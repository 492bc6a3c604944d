"""Connections on the sandbox's loopback, carried to the server and back beside the output of processes."""

from __future__ import annotations

import errno
import random
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field

import pytest

from supervisor_driver import PATIENCE, PLENTY, Client, Supervisor, until
from taskcell.supervisor import events, protocol, requests
from taskcell.supervisor.protocol import TUNNEL_FIRST_CREDIT, TUNNEL_PIECE, Loopback

MANY = 1 << 30


def listen(client: Client, places: int = 64, port: int = 0) -> events.Listening:
    client.send(requests.listen_on(port, places))
    return client.wait(events.Listening)


def dial(port: int, host: str = "127.0.0.1") -> socket.socket:
    return socket.create_connection((host, port), timeout=PATIENCE)


def accepted(client: Client) -> int:
    """The number of the next tunnel that a program has opened."""
    return client.wait(events.TunnelOpened).process


def received(client: Client, tunnel: int, size: int) -> bytes:
    """So many bytes of a program, as they come; credit is given back at once."""
    data = b""
    while len(data) < size:
        piece = client.wait(events.TunnelData, tunnel).data
        client.send(requests.tunnel_credit(tunnel, len(piece)))
        data += piece
    return data


def send_until_closed(client: Client, data: bytes) -> None:
    with suppress(OSError):
        client.send(data)


def read_all(end: socket.socket) -> bytes:
    data = b""
    while piece := end.recv(1 << 16):
        data += piece
    return data


@pytest.fixture
def server() -> Iterator[socket.socket]:
    """Something that listens in the sandbox."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(PATIENCE)
        yield listening


def port_of(listening: socket.socket) -> int:
    port: int = listening.getsockname()[1]
    return port


# --- what a program opens ----------------------------------------------------------------------------------------


def test_a_program_reaches_the_server_by_either_loopback_address(client: Client) -> None:
    listening = listen(client)
    assert listening.errno == 0
    hosts = ["127.0.0.1", *(["::1"] if Loopback.IPV6 in listening.addresses else [])]
    assert Loopback.IPV4 in listening.addresses
    for host in hosts:
        with dial(listening.port, host) as program:
            tunnel = accepted(client)
            assert tunnel >= protocol.TUNNEL_ACCEPTED
            program.sendall(b"question")
            assert received(client, tunnel, 8) == b"question"
            client.send(requests.tunnel_data(tunnel, b"answer"), requests.tunnel_end(tunnel))
            assert read_all(program) == b"answer"


def test_nobody_but_loopback_reaches_it(client: Client) -> None:
    listening = listen(client)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing; it finds out the machine's own address
        except OSError:
            pytest.skip("this machine has no address beside loopback")
        own = probe.getsockname()[0]
    with pytest.raises(ConnectionRefusedError):
        dial(listening.port, own)


def test_a_second_listen_keeps_the_port(client: Client) -> None:
    first = listen(client)
    assert listen(client, port=1).port == first.port


def test_a_port_in_use_is_said_and_another_one_can_be_asked_for(client: Client, server: socket.socket) -> None:
    refused = listen(client, port=port_of(server))
    assert (refused.port, refused.errno, refused.addresses) == (0, errno.EADDRINUSE, Loopback.NONE)
    assert listen(client).port


def test_each_end_can_stop_sending_alone(client: Client) -> None:
    with dial(listen(client).port) as program:
        tunnel = accepted(client)
        program.sendall(b"all of it")
        program.shutdown(socket.SHUT_WR)
        assert received(client, tunnel, 9) == b"all of it"
        client.wait(events.TunnelEnd, tunnel)
        client.send(requests.tunnel_data(tunnel, b"late"), requests.tunnel_end(tunnel))
        assert read_all(program) == b"late"
    with dial(listen(client).port) as program:
        tunnel = accepted(client)
        client.send(requests.tunnel_data(tunnel, b"first"), requests.tunnel_end(tunnel))
        assert read_all(program) == b"first"
        program.sendall(b"afterwards")
        assert received(client, tunnel, 10) == b"afterwards"


def test_a_reset_of_the_program_is_no_end(client: Client) -> None:
    program = dial(listen(client).port)
    tunnel = accepted(client)
    program.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    program.close()
    assert client.wait(events.TunnelReset, tunnel).errno == errno.ECONNRESET
    assert not [event for event in client.events if isinstance(event, events.TunnelEnd)]


def test_a_reset_of_the_server_is_one_for_the_program(client: Client) -> None:
    with dial(listen(client).port) as program:
        client.send(requests.tunnel_reset(accepted(client)))
        with pytest.raises(ConnectionResetError):
            program.recv(1)


def test_a_program_that_is_gone_is_told_when_the_server_still_sends(client: Client) -> None:
    program = dial(listen(client).port)
    tunnel = accepted(client)
    program.close()
    client.wait(events.TunnelEnd, tunnel)
    client.send(requests.tunnel_data(tunnel, b"x"))
    client.sync()
    client.send(requests.tunnel_data(tunnel, b"x"))
    assert client.wait(events.TunnelReset, tunnel).errno in (errno.EPIPE, errno.ECONNRESET)


def test_requests_about_a_tunnel_that_is_gone_mean_nothing(client: Client) -> None:
    with dial(listen(client).port):
        tunnel = accepted(client)
        client.send(requests.tunnel_reset(tunnel))
        for frame in (
            requests.tunnel_data(tunnel, b"x" * TUNNEL_PIECE),
            requests.tunnel_credit(tunnel, 1),
            requests.tunnel_end(tunnel),
            requests.tunnel_reset(tunnel),
        ):
            client.send(frame * 8)
    client.sync()


# --- bounds ------------------------------------------------------------------------------------------------------


def test_a_program_sends_no_more_than_its_credit(client: Client) -> None:
    with dial(listen(client).port) as program:
        tunnel = accepted(client)
        threading.Thread(target=program.sendall, args=(b"x" * (TUNNEL_FIRST_CREDIT + 1000),)).start()
        data = b""
        while len(data) < TUNNEL_FIRST_CREDIT:
            data += client.wait(events.TunnelData, tunnel).data
        client.sync()
        client.sync()
        assert not client.events
        client.send(requests.tunnel_credit(tunnel, 10))
        assert client.wait(events.TunnelData, tunnel).data == b"x" * 10
        client.send(requests.tunnel_credit(tunnel, 990))
        assert received(client, tunnel, 990)


def test_more_than_the_window_ends_the_connection(client: Client) -> None:
    with dial(listen(client).port):
        event = client.wait(events.TunnelOpened)
        # More than the window, and than its socket and ours hold: the program reads nothing.
        piece = requests.tunnel_data(event.process, b"x" * TUNNEL_PIECE)
        flood = threading.Thread(target=send_until_closed, args=(client, piece * (event.window // TUNNEL_PIECE + 512)))
        flood.start()
        client.wait_closed()
        flood.join(PATIENCE)
    assert not [event for event in client.events if isinstance(event, events.TunnelReset)]


def test_bytes_after_the_end_end_the_connection(client: Client) -> None:
    with dial(listen(client).port):
        tunnel = accepted(client)
        client.send(requests.tunnel_end(tunnel), requests.tunnel_data(tunnel, b"x"))
        assert "after the end" in client.wait(events.Error).message


def test_a_window_is_given_back_as_the_program_reads(client: Client) -> None:
    with dial(listen(client).port) as program:
        event = client.wait(events.TunnelOpened)
        size, read = event.window * 8, bytearray()

        def consume() -> None:
            while len(read) < size:
                read.extend(program.recv(1 << 16))

        reader = threading.Thread(target=consume)
        reader.start()
        left, sent = event.window, 0
        while sent < size:
            step = min(left, TUNNEL_PIECE, size - sent)
            if step:
                client.send(requests.tunnel_data(event.process, bytes([sent // TUNNEL_PIECE % 251]) * step))
                sent, left = sent + step, left - step
            else:
                left += client.wait(events.TunnelCredit, event.process).amount
        reader.join(PATIENCE)
        assert len(read) == size


def test_no_more_are_accepted_than_there_are_places(client: Client) -> None:
    port = listen(client, places=3).port
    with ExitStack() as held:
        for _ in range(8):
            held.enter_context(dial(port))
        first = [accepted(client) for _ in range(3)]
        client.sync()
        client.sync()
        assert not client.events
        # A tunnel that ends makes no place by itself: the server says when it can take another one.
        client.send(requests.tunnel_reset(first[0]))
        client.sync()
        client.sync()
        assert not client.events
        client.send(requests.accept(2))
        assert len({accepted(client), accepted(client), *first}) == 5
        client.sync()
        assert not client.events


def test_a_flood_of_connections_costs_no_frame_beyond_the_places(client: Client) -> None:
    port = listen(client, places=4).port
    for _ in range(2000):
        with socket.socket() as program:
            program.setblocking(False)
            program.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            program.connect_ex(("127.0.0.1", port))
    client.sync()
    assert len([event for event in client.events if isinstance(event, events.TunnelOpened)]) <= 4
    assert client.run(1, "echo", "here").exit_code == 0


def test_a_table_that_is_full_lets_others_wait_and_refuses_what_the_server_opens(
    client: Client, server: socket.socket
) -> None:
    port = listen(client, places=MANY).port
    with ExitStack() as held:
        tunnels = []
        while True:
            held.enter_context(dial(port))
            client.sync()
            found = [event for event in client.events if isinstance(event, events.TunnelOpened)]
            client.events.clear()
            if not found:
                break
            tunnels += found
        assert len(tunnels) == 128
        client.send(requests.open_tunnel(1, port_of(server)))
        assert client.wait(events.TunnelReset, 1).errno == errno.ENOBUFS
        client.send(requests.tunnel_reset(tunnels[5].process))
        assert accepted(client)


def test_numbers_are_not_used_again_while_the_server_may_still_speak_of_them(client: Client) -> None:
    port, seen = listen(client, places=MANY).port, set()
    for _ in range(200):
        with dial(port):
            tunnel = accepted(client)
            assert tunnel not in seen
            seen.add(tunnel)
            client.send(requests.tunnel_reset(tunnel))


# --- beside everything else --------------------------------------------------------------------------------------


def test_output_and_tunnels_do_not_wait_for_each_other(client: Client) -> None:
    """Both are endless; each goes on while the other does."""
    port = listen(client).port
    client.start(1, "yes", credit=PLENTY)
    with dial(port) as program:
        tunnel = accepted(client)
        client.send(requests.tunnel_credit(tunnel, MANY))

        def pour() -> None:
            try:
                while True:
                    program.sendall(b"x" * (1 << 16))
            except OSError:
                return

        threading.Thread(target=pour).start()
        carried = printed = 0
        while carried < 8 << 20 or printed < 8 << 20:
            assert carried < 256 << 20, "the output does not go on beside the tunnel"
            assert printed < 256 << 20, "the tunnel does not go on beside the output"
            client.receive(time.monotonic() + PATIENCE)
            for event in client.events:
                carried += len(event.data) if isinstance(event, events.TunnelData) else 0
                printed += len(event.data) if isinstance(event, events.Output) else 0
            client.events.clear()
        client.send(requests.tunnel_reset(tunnel), requests.kill(1, 0))


def test_what_waits_in_a_tunnel_keeps_no_answer_back(client: Client) -> None:
    with dial(listen(client).port) as program:
        tunnel = accepted(client)
        threading.Thread(target=lambda: program.sendall(b"x" * TUNNEL_FIRST_CREDIT)).start()
        assert client.run(1, "true").exit_code == 0
        assert received(client, tunnel, TUNNEL_FIRST_CREDIT)


def test_tunnels_end_with_their_session_and_the_next_one_listens_on_the_same_port(supervisor: Supervisor) -> None:
    with supervisor.claim() as first:
        port = listen(first, places=1).port
        program = dial(port)
        accepted(first)
    # Nobody is accepted without a place; who connects now waits for the next session.
    with dial(port) as waiting, supervisor.claim() as second:
        with program, pytest.raises(ConnectionResetError):
            program.recv(1)
        second.sync()
        assert not [event for event in second.events if isinstance(event, events.TunnelOpened)]
        assert listen(second).port == port
        tunnel = accepted(second)
        waiting.sendall(b"still here")
        assert received(second, tunnel, 10) == b"still here"


def test_no_process_holds_a_tunnel_open(client: Client) -> None:
    with dial(listen(client).port) as program:
        tunnel = accepted(client)
        client.shell(1, "exec sleep 60")
        client.send(requests.tunnel_end(tunnel))
        assert read_all(program) == b""
        program.shutdown(socket.SHUT_WR)
        client.wait(events.TunnelEnd, tunnel)
    client.send(requests.kill(1, 0))
    client.wait(events.Gone, 1)


# --- what the server opens ---------------------------------------------------------------------------------------


def test_the_server_reaches_what_listens_in_the_sandbox(client: Client, server: socket.socket) -> None:
    client.send(requests.open_tunnel(7, port_of(server)))
    assert client.wait(events.TunnelOpened, 7).window >= 16 << 10
    program, _ = server.accept()
    with program:
        client.send(requests.tunnel_data(7, b"GET"), requests.tunnel_end(7))
        assert read_all(program) == b"GET"
        program.sendall(b"page")
        assert received(client, 7, 4) == b"page"
    client.wait(events.TunnelEnd, 7)


def test_the_server_reaches_what_listens_on_ipv6_alone(client: Client) -> None:
    try:
        listening = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("this machine has no IPv6")
    with listening:
        client.send(requests.open_tunnel(7, port_of(listening)))
        client.wait(events.TunnelOpened, 7)


def test_a_port_on_which_nobody_listens_is_refused(client: Client) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = port_of(gone)
    client.send(requests.open_tunnel(7, port))
    assert client.wait(events.TunnelReset, 7).errno == errno.ECONNREFUSED
    client.sync()


def test_a_number_that_is_in_use_ends_the_connection(client: Client, server: socket.socket) -> None:
    client.send(requests.open_tunnel(7, port_of(server)), requests.open_tunnel(7, port_of(server)))
    assert "new number" in client.wait(events.Error).message


# --- anything at once --------------------------------------------------------------------------------------------


@dataclass
class Load:
    """Programs that send, end and reset as they like, and what came of each."""

    choose: random.Random
    programs: dict[int, socket.socket] = field(default_factory=dict)
    sent: dict[int, bytes] = field(default_factory=dict)
    over: dict[int, str] = field(default_factory=dict)
    came: dict[int, bytes] = field(default_factory=lambda: defaultdict(bytes))
    told: dict[int, str] = field(default_factory=dict)

    def add(self, tunnel: int, program: socket.socket) -> None:
        self.programs[tunnel], self.sent[tunnel] = program, b""

    def step(self, client: Client) -> None:
        tunnel = self.choose.choice(sorted(self.programs))
        program, what = self.programs[tunnel], self.choose.random()
        if what < 0.75 and len(self.sent[tunnel]) < 60_000:
            piece = self.choose.randbytes(self.choose.randrange(1, 3000))
            program.sendall(piece)
            self.sent[tunnel] += piece
            return
        if what < 0.9:
            program.shutdown(socket.SHUT_WR)
            client.send(requests.tunnel_end(tunnel))
        else:
            program.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            program.close()
        self.over[tunnel] = "end" if what < 0.9 else "reset"
        del self.programs[tunnel]

    def take(self, client: Client) -> bool:
        """Take what has come; return whether each end has been told."""
        client.sync()
        for event in client.events:
            if isinstance(event, events.TunnelData):
                self.came[event.process] += event.data
            elif isinstance(event, events.TunnelEnd | events.TunnelReset):
                self.told[event.process] = "end" if isinstance(event, events.TunnelEnd) else "reset"
        client.events.clear()
        return self.told.keys() == self.over.keys()


@pytest.mark.parametrize("seed", range(3))
def test_many_tunnels_at_once_carry_every_byte_or_break(client: Client, seed: int) -> None:
    port, load = listen(client, places=MANY).port, Load(random.Random(seed))
    with ExitStack() as held:
        for _ in range(24):
            program = held.enter_context(dial(port))
            load.add(accepted(client), program)
        while load.programs:
            load.step(client)
        until(lambda: load.take(client), "the end of every tunnel")
    assert load.told == load.over
    for tunnel, data in load.came.items():
        assert load.sent[tunnel].startswith(data)
        assert load.over[tunnel] == "reset" or data == load.sent[tunnel]
