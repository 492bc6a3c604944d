"""The state report: what a shell tells of its end, by a FIFO that only the supervisor reads."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from supervisor_driver import Client, Supervisor
from taskcell.supervisor import events, requests
from taskcell.supervisor.protocol import SpawnFlag

REPORT = SpawnFlag.REPORT_STATE
#: Bytes of a report in one frame, and of one in all.
PIECE, MOST = 1 << 16, 4 << 20


def fifo(supervisor: Supervisor, number: int) -> str:
    return f"{supervisor.path.parent}.state/{number}"


def telling(client: Client, supervisor: Supervisor, number: int, script: str, **options: object) -> events.Exit:
    """Run a script in which FIFO stands for the file that it reports to."""
    return client.run(number, "bash", "-c", script.replace("FIFO", fifo(supervisor, number)), flags=REPORT, **options)


def last_state(client: Client, offset: int = 0) -> events.LastState:
    client.send(requests.state(offset))
    return client.wait(events.LastState)


def test_the_exit_carries_what_was_told_byte_for_byte(client: Client, supervisor: Supervisor) -> None:
    end = telling(client, supervisor, 1, r"printf 'a\0\377b' > FIFO; printf c > FIFO; exit 3")
    assert (end.exit_code, end.report, end.report_size) == (3, b"a\0\xffbc", 5)


def test_without_a_report_there_is_none(client: Client) -> None:
    end = client.run(1, "true", flags=REPORT)
    assert (end.report, end.report_size) == (b"", 0)


def test_without_the_flag_there_is_no_fifo(client: Client, supervisor: Supervisor) -> None:
    assert client.run(1, "test", "-e", fifo(supervisor, 1)).exit_code == 1


def test_the_shell_reads_its_prologue_first_and_neither_file_outlives_the_process(
    client: Client, supervisor: Supervisor
) -> None:
    file = fifo(supervisor, 1) + ".bash"
    options = {"env": {b"BASH_ENV": file.encode()}, "prologue": b"echo first\nunset BASH_ENV\n"}
    client.run(1, "bash", "-c", "echo then; printf %s $BASH_ENV", flags=REPORT, **options)
    assert client.output(1) == b"first\nthen\n"
    assert os.listdir(f"{supervisor.path.parent}.state") == []


def test_a_long_report_is_asked_for_in_pieces(client: Client, supervisor: Supervisor) -> None:
    end = telling(client, supervisor, 1, "head -c 200000 /dev/zero | tr '\\0' x > FIFO", tag=b"long")
    assert (end.report, end.report_size) == (b"", 200_000)
    pieces = []
    while sum(map(len, pieces)) < end.report_size:
        state = last_state(client, sum(map(len, pieces)))
        assert (state.tag, state.size) == (b"long", 200_000)
        assert 0 < len(state.report) <= PIECE
        pieces.append(state.report)
    assert b"".join(pieces) == b"x" * 200_000
    assert last_state(client, 200_000).report == b""


def test_a_report_without_end_harms_nothing_and_is_dropped(client: Client, supervisor: Supervisor) -> None:
    end = telling(client, supervisor, 1, f"head -c {MOST + 1} /dev/zero > FIFO; exit 4", tag=b"huge")
    assert (end.exit_code, end.report, end.report_size) == (4, b"", 0)
    assert last_state(client).tag == b""


def test_a_descendant_that_goes_on_writing_holds_up_nobody(client: Client, supervisor: Supervisor) -> None:
    end = telling(client, supervisor, 1, "printf told > FIFO; (exec > FIFO; while :; do echo y; done) & exit 0")
    assert end.report[:4] == b"told"
    client.send(requests.kill(1, 0))
    client.wait(events.Gone, 1)


def test_a_file_that_was_put_in_the_fifos_place_is_neither_read_nor_kept(
    client: Client, supervisor: Supervisor, tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    os.symlink(victim, fifo(supervisor, 1))
    os.symlink(victim, fifo(supervisor, 1) + ".bash")
    end = telling(client, supervisor, 1, "printf told > FIFO", prologue=b"true\n")
    assert end.report == b"told"
    assert victim.read_text() == "mine"


@pytest.mark.parametrize("script", ["rm -f FIFO", "rm -f FIFO; mkdir FIFO", "cat FIFO & kill %1; wait"])
def test_what_happens_to_the_fifo_costs_the_report_alone(client: Client, supervisor: Supervisor, script: str) -> None:
    assert telling(client, supervisor, 1, script + "; exit 6").exit_code == 6
    client.sync()


def test_the_last_report_that_counts_is_kept_for_the_next_server(supervisor: Supervisor) -> None:
    with supervisor.claim() as client:
        assert last_state(client) == events.LastState(0, b"", 0, b"")
        telling(client, supervisor, 1, "printf one > FIFO", tag=b"one")
        telling(client, supervisor, 2, "printf two > FIFO")  # has no tag
        client.run(3, "true", tag=b"three")  # does not report
        telling(client, supervisor, 4, "printf four > FIFO; kill -9 $$", tag=b"four")
        client.run(5, "true", flags=REPORT, tag=b"five")
        script = f"read x; printf six > {fifo(supervisor, 6)}"
        client.shell(6, script, flags=REPORT | SpawnFlag.STDIN, tag=b"six")
        client.send(requests.no_report(6), requests.stdin(6, b"go\n"))
        client.wait(events.Exit, 6)
    with supervisor.claim() as client:
        assert last_state(client) == events.LastState(0, b"one", 3, b"one")
