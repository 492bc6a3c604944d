"""Standard input: a window, acknowledgements, and readers that do not read."""

from __future__ import annotations

from supervisor_driver import Client, Supervisor
from taskcell.supervisor import events, protocol, requests
from taskcell.supervisor.protocol import SpawnFlag, Stream


def acknowledged(client: Client, process: int = 1) -> int:
    client.sync()
    acks = [event for event in client.events if isinstance(event, events.StdinAck) and event.process == process]
    client.events = [event for event in client.events if event not in acks]
    return sum(ack.count for ack in acks)


def feed(client: Client, process: int, data: bytes) -> None:
    """Send it all, keeping to the window."""
    window, at, asked = protocol.STDIN_WINDOW, 0, 0
    while at < len(data):
        size = min(window, 10_007, len(data) - at)
        if size:
            client.send(requests.stdin(process, data[at : at + size]))
            at, window = at + size, window - size
        else:
            window += client.wait(events.StdinAck, process).count
            asked += 1
    client.send(requests.stdin_eof(process))


def test_200_kilobytes_go_through_cat(client: Client) -> None:
    data = bytes(index * 7 % 251 for index in range(200_000))
    client.start(1, "cat", flags=SpawnFlag.STDIN)
    feed(client, 1, data)
    assert client.wait(events.Exit, 1).exit_code == 0
    assert client.output(1) == data


def test_a_process_that_never_reads_blocks_nobody(client: Client) -> None:
    client.start(1, "sleep", "60", flags=SpawnFlag.STDIN)
    client.send(requests.stdin(1, bytes(65536)))
    assert acknowledged(client) == 65536, "the pipe takes the first window"
    client.send(*[requests.stdin(1, bytes(65536))])
    client.run(2, "true")
    client.send(requests.kill(1, 0))
    client.wait(events.Killed, 1)
    assert client.wait(events.StdinAck, 1).count == 65536, "thrown away"


def test_more_than_the_window_ends_the_connection(supervisor: Supervisor) -> None:
    with supervisor.claim() as client:
        client.start(1, "sleep", "60", flags=SpawnFlag.STDIN)
        acked = 65536
        while acked == 65536:  # as much as the pipe takes
            client.send(requests.stdin(1, bytes(65536)))
            acked = acknowledged(client)
        client.send(requests.stdin(1, bytes(65536)))
        assert "window" in client.wait(events.Error).message
        client.wait_closed()


def test_bulk_input_has_a_window_of_a_megabyte_and_no_more(supervisor: Supervisor) -> None:
    with supervisor.claim() as client:
        client.start(1, "sleep", "60", flags=SpawnFlag.STDIN | SpawnFlag.BULK_INPUT)
        client.send(*[requests.stdin(1, bytes(65536))] * (protocol.BULK_WINDOW // 65536))
        acked = acknowledged(client)  # as much as the pipe takes
        assert acked < protocol.BULK_WINDOW
        again = bytes(acked)
        client.send(*[requests.stdin(1, again[at : at + 65536]) for at in range(0, acked, 65536)])
        assert not acknowledged(client)
        client.send(requests.stdin(1, b"x"))
        assert "window" in client.wait(events.Error).message
        client.wait_closed()


def test_the_window_is_whole_again_for_a_new_connection(supervisor: Supervisor) -> None:
    with supervisor.claim() as client:
        client.shell(1, "read -u 3 x 3<&0; trap 'cat | wc -c; exit' USR1; echo up; while :; do sleep 0.02; done",
                     flags=SpawnFlag.STDIN)  # fmt: skip
        client.send(requests.stdin(1, b"\n"))
        client.wait_output(1, b"up")
        for _ in range(5):
            client.send(requests.stdin(1, b"a" * 65536))
            if acknowledged(client) < 65536:
                break
        client.send(requests.list_processes())
    with supervisor.claim() as client:
        client.send(requests.stdin(1, b"b" * 65536), requests.stdin_eof(1), requests.signal(1, 10))
        assert client.wait(events.StdinAck, 1).count <= 65536
        client.wait(events.Exit, 1)
        total = acknowledged(client)
        assert total <= 65536, "what an earlier connection sent is not acknowledged to this one"
        client.send(requests.attach(1, Stream.STDOUT, 3, 100))
        count = int(client.wait(events.Output, 1).data)
        assert count % 65536 == 0
        assert count >= 2 * 65536


def test_the_end_of_input_comes_after_the_input(client: Client) -> None:
    client.start(1, "sh", "-c", "sleep 0.1; cat; echo end", flags=SpawnFlag.STDIN)
    client.send(requests.stdin(1, b"abc"), requests.stdin_eof(1))
    client.wait(events.Exit, 1)
    assert client.output(1) == b"abcend\n"


def test_input_after_its_end_is_thrown_away_and_acknowledged(client: Client) -> None:
    client.start(1, "sleep", "60", flags=SpawnFlag.STDIN)
    client.send(requests.stdin_eof(1), requests.stdin(1, b"late"), requests.stdin_eof(1))
    assert acknowledged(client) == 4


def test_input_for_a_process_that_closed_it_is_thrown_away_and_acknowledged(client: Client) -> None:
    client.shell(1, "exec <&-; echo closed; sleep 60", flags=SpawnFlag.STDIN)
    client.wait_output(1, b"closed")
    client.send(requests.stdin(1, bytes(65536)))
    assert client.wait(events.StdinAck, 1).count == 65536
    client.send(requests.stdin(1, bytes(65536)))
    assert client.wait(events.StdinAck, 1).count == 65536


def test_input_for_a_process_without_a_pipe_is_thrown_away_and_acknowledged(client: Client) -> None:
    client.shell(1, "cat; echo end; sleep 60")
    client.wait_output(1, b"end")
    client.send(requests.stdin(1, b"abc"))
    assert acknowledged(client) == 3


def test_input_for_a_process_that_has_exited_is_thrown_away_and_acknowledged(client: Client) -> None:
    client.run(1, "true", flags=SpawnFlag.STDIN)
    client.send(requests.stdin(1, bytes(1000)))
    assert acknowledged(client) == 1000


def test_input_may_follow_the_spawn_at_once(client: Client) -> None:
    client.spawn(1, "cat", flags=SpawnFlag.STDIN)
    client.send(requests.stdin(1, b"early"), requests.stdin_eof(1))
    client.wait(events.Exit, 1)
    assert client.output(1) == b"early"


def test_an_empty_input_is_just_an_end(client: Client) -> None:
    client.spawn(1, "cat", flags=SpawnFlag.STDIN)
    client.send(requests.stdin(1, b""), requests.stdin_eof(1))
    assert client.wait(events.Exit, 1).stdout_total == 0
