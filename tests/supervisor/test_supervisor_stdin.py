"""Standard input: a window, acknowledgements, and readers that do not read."""

from __future__ import annotations

from supervisor_driver import Client, Supervisor

from taskcell.supervisor import protocol as wire
from taskcell.supervisor.protocol import SpawnFlag, Stream


def acknowledged(client: Client, process: int = 1) -> int:
    client.sync()
    acks = [event for event in client.events if isinstance(event, wire.StdinAck) and event.process == process]
    client.events = [event for event in client.events if event not in acks]
    return sum(ack.count for ack in acks)


def feed(client: Client, process: int, data: bytes) -> None:
    """Send it all, keeping to the window."""
    window, at, asked = wire.STDIN_WINDOW, 0, 0
    while at < len(data):
        size = min(window, 10_007, len(data) - at)
        if size:
            client.send(wire.stdin(process, data[at : at + size]))
            at, window = at + size, window - size
        else:
            window += client.wait(wire.StdinAck, process).count
            asked += 1
    client.send(wire.stdin_eof(process))


def test_200_kilobytes_go_through_cat(client: Client) -> None:
    data = bytes(index * 7 % 251 for index in range(200_000))
    client.start(1, "cat", flags=SpawnFlag.STDIN)
    feed(client, 1, data)
    assert client.wait(wire.Exit, 1).exit_code == 0
    assert client.output(1) == data


def test_a_process_that_never_reads_blocks_nobody(client: Client) -> None:
    client.start(1, "sleep", "60", flags=SpawnFlag.STDIN)
    client.send(wire.stdin(1, bytes(65536)))
    assert acknowledged(client) == 65536, "the pipe takes the first window"
    client.send(*[wire.stdin(1, bytes(65536))])
    client.run(2, "true")
    client.send(wire.kill(1, 0))
    client.wait(wire.Killed, 1)
    assert client.wait(wire.StdinAck, 1).count == 65536, "thrown away"


def test_more_than_the_window_ends_the_connection(supervisor: Supervisor) -> None:
    with supervisor.claim() as client:
        client.start(1, "sleep", "60", flags=SpawnFlag.STDIN)
        acked = 65536
        while acked == 65536:  # as much as the pipe takes
            client.send(wire.stdin(1, bytes(65536)))
            acked = acknowledged(client)
        client.send(wire.stdin(1, bytes(65536)))
        assert "window" in client.wait(wire.Error).message
        client.wait_closed()


def test_the_window_is_whole_again_for_a_new_connection(supervisor: Supervisor) -> None:
    with supervisor.claim() as client:
        client.shell(1, "read -u 3 x 3<&0; trap 'cat | wc -c; exit' USR1; echo up; while :; do sleep 0.02; done",
                     flags=SpawnFlag.STDIN)  # fmt: skip
        client.send(wire.stdin(1, b"\n"))
        client.wait_output(1, b"up")
        for _ in range(5):
            client.send(wire.stdin(1, b"a" * 65536))
            if acknowledged(client) < 65536:
                break
        client.send(wire.list_processes())
    with supervisor.claim() as client:
        client.send(wire.stdin(1, b"b" * 65536), wire.stdin_eof(1), wire.signal(1, 10))
        assert client.wait(wire.StdinAck, 1).count <= 65536
        client.wait(wire.Exit, 1)
        total = acknowledged(client)
        assert total <= 65536, "what an earlier connection sent is not acknowledged to this one"
        client.send(wire.attach(1, Stream.STDOUT, 3, 100))
        count = int(client.wait(wire.Output, 1).data)
        assert count % 65536 == 0
        assert count >= 2 * 65536


def test_the_end_of_input_comes_after_the_input(client: Client) -> None:
    client.start(1, "sh", "-c", "sleep 0.1; cat; echo end", flags=SpawnFlag.STDIN)
    client.send(wire.stdin(1, b"abc"), wire.stdin_eof(1))
    client.wait(wire.Exit, 1)
    assert client.output(1) == b"abcend\n"


def test_input_after_its_end_is_thrown_away_and_acknowledged(client: Client) -> None:
    client.start(1, "sleep", "60", flags=SpawnFlag.STDIN)
    client.send(wire.stdin_eof(1), wire.stdin(1, b"late"), wire.stdin_eof(1))
    assert acknowledged(client) == 4


def test_input_for_a_process_that_closed_it_is_thrown_away_and_acknowledged(client: Client) -> None:
    client.shell(1, "exec <&-; echo closed; sleep 60", flags=SpawnFlag.STDIN)
    client.wait_output(1, b"closed")
    client.send(wire.stdin(1, bytes(65536)))
    assert client.wait(wire.StdinAck, 1).count == 65536
    client.send(wire.stdin(1, bytes(65536)))
    assert client.wait(wire.StdinAck, 1).count == 65536


def test_input_for_a_process_without_a_pipe_is_thrown_away_and_acknowledged(client: Client) -> None:
    client.shell(1, "cat; echo end; sleep 60")
    client.wait_output(1, b"end")
    client.send(wire.stdin(1, b"abc"))
    assert acknowledged(client) == 3


def test_input_for_a_process_that_has_exited_is_thrown_away_and_acknowledged(client: Client) -> None:
    client.run(1, "true", flags=SpawnFlag.STDIN)
    client.send(wire.stdin(1, bytes(1000)))
    assert acknowledged(client) == 1000


def test_input_may_follow_the_spawn_at_once(client: Client) -> None:
    client.spawn(1, "cat", flags=SpawnFlag.STDIN)
    client.send(wire.stdin(1, b"early"), wire.stdin_eof(1))
    client.wait(wire.Exit, 1)
    assert client.output(1) == b"early"


def test_an_empty_input_is_just_an_end(client: Client) -> None:
    client.spawn(1, "cat", flags=SpawnFlag.STDIN)
    client.send(wire.stdin(1, b""), wire.stdin_eof(1))
    assert client.wait(wire.Exit, 1).stdout_total == 0
