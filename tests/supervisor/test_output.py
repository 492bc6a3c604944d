"""Output by credit, out of a bounded spool."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from supervisor_driver import PLENTY, Client, Supervisor, until
from taskcell.supervisor import events, protocol, requests
from taskcell.supervisor.protocol import SpawnFlag, Stream


def collected(client: Client, process: int = 1) -> list[events.Output]:
    """All output that credit allows now. PONG does not wait for output: what one round sends shows in the next."""
    found: list[events.Output] = []
    while True:
        client.sync()
        client.sync()
        before, found = found, [e for e in client.events if isinstance(e, events.Output) and e.process == process]
        if len(before) == len(found):
            return found


def memory_kb(supervisor: Supervisor) -> int:
    status = Path(f"/proc/{supervisor.child.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0])


def test_output_goes_out_only_as_far_as_credit_reaches(client: Client) -> None:
    client.run(1, "sh", "-c", "printf 0123456789; printf abc >&2", credit=4)
    assert [(e.stream, e.data) for e in collected(client)] == [(Stream.STDOUT, b"0123"), (Stream.STDERR, b"abc")]
    client.send(requests.credit(1, Stream.STDOUT, 3))
    assert b"".join(e.data for e in collected(client) if e.stream is Stream.STDOUT) == b"0123456"
    client.send(requests.credit(1, Stream.STDOUT, PLENTY))
    assert client.wait_output(1, b"789") == b"0123456789"


def test_credit_adds_up_and_never_overflows(client: Client) -> None:
    client.run(1, "printf", "0123456789", credit=0)
    assert collected(client) == []
    client.send(requests.credit(1, Stream.STDOUT, 2), requests.credit(1, Stream.STDOUT, 3))
    assert b"".join(event.data for event in collected(client)) == b"01234"
    client.send(*[requests.credit(1, Stream.STDOUT, (1 << 64) - 1)] * 2)
    assert b"".join(event.data for event in collected(client)) == b"0123456789"


def test_attach_goes_on_from_a_cursor_and_sets_the_credit(client: Client) -> None:
    client.run(1, "printf", "0123456789", credit=PLENTY)
    client.events.clear()
    client.send(requests.attach(1, Stream.STDOUT, 4, 3))
    assert collected(client) == [events.Output(1, Stream.STDOUT, 4, b"456")]


def test_a_cursor_past_the_end_waits_there(client: Client) -> None:
    client.start(1, "cat", flags=SpawnFlag.STDIN, credit=0)
    client.send(requests.attach(1, Stream.STDOUT, 5, PLENTY), requests.stdin(1, b"0123"))
    assert collected(client) == []
    client.send(requests.stdin(1, b"4567"))
    assert client.wait(events.Output, 1) == events.Output(1, Stream.STDOUT, 5, b"567")


def test_a_gap_shows_in_the_offset_and_the_last_bytes_are_kept(client: Client) -> None:
    end = client.run(1, "seq", "-w", "100000", credit=0, spool=100_000)
    assert end.stdout_total == 700_000
    client.send(requests.attach(1, Stream.STDOUT, 0, PLENTY))
    client.wait(events.Gone, 1)
    client.sync()
    chunks = [event for event in client.events if isinstance(event, events.Output)]
    assert chunks[0].offset == 600_000
    expected = b"".join(b"%06d\n" % number for number in range(1, 100_001))[600_000:]
    assert b"".join(event.data for event in chunks) == expected


@pytest.mark.parametrize("spool", [0, 1, 7, 4096, 65_535, 65_536, 65_537, 300_001])
def test_the_spool_keeps_exactly_its_last_bytes_and_4_kilobytes_at_least(client: Client, spool: int) -> None:
    end = client.run(1, "python3", "-c", "import sys; sys.stdout.write(''.join(map(str, range(200000))))",
                     credit=0, spool=spool)  # fmt: skip
    text = "".join(map(str, range(200000))).encode()
    assert end.stdout_total == len(text)
    client.send(requests.attach(1, Stream.STDOUT, 0, PLENTY))
    kept = b"".join(event.data for event in collected(client))
    assert kept == text[-max(spool, 4096) :]


def test_a_large_output_arrives_whole_and_in_order(client: Client) -> None:
    client.start(1, "sh", "-c", "seq 3000000 | tee /dev/stderr", credit=PLENTY, spool=1 << 26)
    client.wait(events.Gone, 1)
    expected = hashlib.sha256("".join(f"{number}\n" for number in range(1, 3000001)).encode()).digest()
    assert hashlib.sha256(b"".join(e.data for e in client.events if is_stdout(e))).digest() == expected
    errors = b"".join(e.data for e in client.events if isinstance(e, events.Output) and e.stream is Stream.STDERR)
    assert hashlib.sha256(errors).digest() == expected


def is_stdout(event: events.Event) -> bool:
    return isinstance(event, events.Output) and event.stream is Stream.STDOUT


def test_one_that_never_stops_printing_does_not_starve_another(client: Client) -> None:
    client.start(1, "yes", credit=0)
    client.start(2, "yes", credit=PLENTY)
    for number in range(3, 23):
        client.run(number, "echo", "short")
        assert client.output(number) == b"short\n"
        client.events = [event for event in client.events if event.process != 2]


def test_the_output_of_an_older_process_is_not_starved_by_a_newer_one(client: Client) -> None:
    client.start(1, "cat", flags=SpawnFlag.STDIN)
    for number in range(2, 6):
        client.start(number, "yes", credit=PLENTY)
    for word in (b"one", b"two", b"three"):
        client.send(requests.stdin(1, word))
        client.wait_output(1, word)
        client.events = [event for event in client.events if event.process == 1]


def test_the_memory_of_a_spool_is_bounded_when_nobody_reads(client: Client, supervisor: Supervisor) -> None:
    client.sync()
    before = memory_kb(supervisor)
    client.start(1, "yes", credit=0, spool=4 << 20)
    until(lambda: total(client) > 200 << 20, "200 MiB of output")
    assert memory_kb(supervisor) - before < 16 << 10


def total(client: Client) -> int:
    client.send(requests.list_processes())
    return client.wait(events.Listing).entries[0].stdout_total


def test_the_memory_of_a_connection_is_bounded_when_the_server_stops_reading(
    client: Client, supervisor: Supervisor
) -> None:
    client.sync()
    before = memory_kb(supervisor)
    client.start(1, "sh", "-c", "yes & yes >&2", credit=PLENTY, spool=1 << 20)
    with supervisor.connect():  # a stranger: its being answered shows that the loop is alive
        until(lambda: memory_kb(supervisor) - before > 1 << 10, "some output")
    assert memory_kb(supervisor) - before < 16 << 10
    client.send(requests.kill(1, 0))
    assert client.wait(events.Killed, 1).survivors == 0


def test_all_spools_together_are_bounded(client: Client, supervisor: Supervisor) -> None:
    client.sync()
    before = memory_kb(supervisor)
    for number in range(1, 31):
        client.start(number, "head", "-c", str(16 << 20), "/dev/zero", credit=0, spool=16 << 20)
        client.wait(events.Gone, number)
    assert memory_kb(supervisor) - before < 280 << 10
    client.send(requests.list_processes())
    kept = [entry.process for entry in client.wait(events.Listing).entries]
    assert 30 in kept
    assert 1 not in kept


def piece(client: Client, cursor: int, size: int, stream: Stream = Stream.STDOUT, process: int = 1) -> events.Data:
    client.send(requests.read(process, stream, cursor, size))
    return client.wait(events.Data, process)


def test_a_piece_of_what_is_kept_can_be_read_at_any_time_and_again(client: Client) -> None:
    client.start(1, "cat", flags=SpawnFlag.STDIN, credit=0)
    client.send(requests.stdin(1, b"0123456789"))
    until(lambda: total(client) == 10, "the output")
    assert piece(client, 2, 3) == events.Data(1, Stream.STDOUT, 0, 10, 2, b"234")
    assert piece(client, 2, 3).data == b"234"
    assert piece(client, 8, 100).data == b"89"
    assert piece(client, 11, 100) == events.Data(1, Stream.STDOUT, 0, 10, 10, b"")
    assert piece(client, protocol.FROM_THE_END, 4) == events.Data(1, Stream.STDOUT, 0, 10, 6, b"6789")
    assert piece(client, protocol.FROM_THE_END, 0).total == 10
    assert piece(client, 0, 5, Stream.STDERR) == events.Data(1, Stream.STDERR, 0, 0, 0, b"")
    assert piece(client, 0, 5, process=7).stream is None
    client.send(requests.stdin_eof(1))
    client.wait(events.Gone, 1)
    assert piece(client, 0, 100).data == b"0123456789"


def test_what_fell_out_of_the_spool_shows_in_where_a_piece_begins(client: Client) -> None:
    client.run(1, "seq", "-w", "100000", credit=0, spool=100_000)
    found = piece(client, 5, 7)
    assert (found.start, found.total, found.offset, found.data) == (600_000, 700_000, 600_000, b"5715\n08")


def test_reading_a_piece_leaves_the_output_by_credit_alone(client: Client) -> None:
    client.run(1, "printf", "0123456789", credit=4)
    assert piece(client, 1, 8).data == b"12345678"
    client.send(requests.credit(1, Stream.STDOUT, PLENTY))
    assert client.wait_output(1, b"9") == b"0123456789"


def test_a_tag_is_given_back_as_it_was_and_a_long_list_comes_in_parts(client: Client) -> None:
    tags = {number: bytes([65 + number % 26]) * protocol.TAG_MAX for number in range(1, 151)}
    for number, tag in tags.items():
        client.start(number, "sleep", "60", tag=tag)
    client.send(requests.list_processes())
    parts = [client.wait(events.Listing)]
    while not parts[-1].is_last:
        parts.append(client.wait(events.Listing))
    assert len(parts) == 2
    assert {entry.process: entry.tag for part in parts for entry in part.entries} == tags
    client.spawn(151, "true", tag=b"x" * (protocol.TAG_MAX + 1))
    assert "tag" in client.wait(events.Failed, 151).message


def hashed(client: Client, process: int, total: int, stream: Stream = Stream.STDOUT, *, at: int = 0) -> str:
    """The digest of a stream's bytes from `at` on, which come without a gap as fast as they are taken."""
    taken, digest = at, hashlib.sha256()
    while taken < total:
        event = client.wait(events.Output, process)
        assert (event.stream, event.offset) == (stream, taken)
        digest.update(event.data)
        taken += len(event.data)
        client.send(requests.credit(process, stream, len(event.data)))
    return digest.hexdigest()


def test_output_that_is_held_comes_whole_through_a_spool_that_is_smaller(client: Client) -> None:
    client.start(1, "seq", "300000", flags=SpawnFlag.HOLD, spool=1 << 16, credit=1 << 16)
    expected = "".join(f"{number}\n" for number in range(1, 300001)).encode()
    assert hashed(client, 1, len(expected)) == hashlib.sha256(expected).hexdigest()
    assert client.wait(events.Exit, 1).stdout_total == len(expected)
    client.wait(events.Gone, 1)


def test_a_program_whose_output_is_held_waits_for_its_reader(client: Client) -> None:
    client.start(1, "bash", "-c", "head -c 300000 /dev/zero; echo done >&2", flags=SpawnFlag.HOLD, spool=4096, credit=0)
    client.start(2, "sleep", "0.2")  # long enough for a program that did not wait
    client.wait(events.Exit, 2)
    assert client.output(1, Stream.STDERR) == b""
    client.send(requests.credit(1, Stream.STDERR, PLENTY), requests.credit(1, Stream.STDOUT, PLENTY))
    client.wait_output(1, b"done", Stream.STDERR)
    assert client.wait(events.Exit, 1).stdout_total == 300_000


def test_what_a_program_left_in_its_pipe_counts_and_comes_after_its_end(client: Client) -> None:
    end = client.run(1, "sh", "-c", "head -c 60000 /dev/zero", flags=SpawnFlag.HOLD, spool=4096, credit=0)
    assert end.stdout_total == 60_000
    client.wait(events.Gone, 1)
    client.send(requests.read(1, Stream.STDOUT, protocol.FROM_THE_END, 0))
    assert client.wait(events.Data, 1).total == 60_000
    client.send(requests.credit(1, Stream.STDOUT, PLENTY))
    until_all = client.wait_output(1, b"\0" * 60_000)
    assert len(until_all) == 60_000


def test_output_that_is_held_outlives_64_newer_processes_and_not_forget(client: Client) -> None:
    client.run(1, "sh", "-c", "head -c 60000 /dev/zero", flags=SpawnFlag.HOLD, spool=4096, credit=0)
    for process in range(2, 70):
        client.run(process, "true")
        client.wait(events.Gone, process)
    client.send(requests.credit(1, Stream.STDOUT, PLENTY))
    assert len(client.wait_output(1, b"\0" * 60_000)) == 60_000
    client.run(100, "sh", "-c", "head -c 60000 /dev/zero", flags=SpawnFlag.HOLD, spool=4096, credit=0)
    client.wait(events.Gone, 100)
    client.send(requests.forget(100), requests.list_processes())
    assert 100 not in {entry.process for entry in client.wait(events.Listing).entries}


def test_a_program_that_waits_for_its_reader_goes_on_with_every_byte_for_the_next_server(
    supervisor: Supervisor,
) -> None:
    spool, had = 1 << 18, 100_000
    with supervisor.claim() as first:
        first.start(1, "seq", "300000", flags=SpawnFlag.HOLD, spool=spool, credit=spool)
        came = 0
        while came < spool:
            came += len(first.wait(events.Output, 1).data)
    expected = "".join(f"{number}\n" for number in range(1, 300001)).encode()
    with supervisor.claim() as second:
        second.send(requests.list_processes())
        (entry,) = second.wait(events.Listing).entries
        assert entry.state is protocol.ProcessState.RUNNING
        assert entry.stdout_total < len(expected)
        second.send(requests.attach(1, Stream.STDOUT, had, 1 << 16))
        assert hashed(second, 1, len(expected), at=had) == hashlib.sha256(expected[had:]).hexdigest()
        assert second.wait(events.Exit, 1).stdout_total == len(expected)
