"""The state report: the directory and the environment that a shell ends with."""

from __future__ import annotations

from pathlib import Path

import pytest

from supervisor_driver import PATH, Client, Supervisor
from taskcell.supervisor import events, requests
from taskcell.supervisor.protocol import SpawnFlag

REPORT = SpawnFlag.REPORT_STATE
#: How a hostile program writes the file: it knows its layout, `u32 size, cwd NUL, entry NUL …`.
HOSTILE = """
import os, sys
data = eval(sys.argv[1])
os.pwrite(199, data, 0)
"""


def hostile(client: Client, data: str) -> events.Exit:
    return client.run(1, "python3", "-c", HOSTILE, data, flags=REPORT)


def test_the_report_carries_directory_and_environment(client: Client, supervisor: Supervisor, tmp_path: Path) -> None:
    script = f"cd {tmp_path}; export A='x\ny' B=; unset PATH; exec {supervisor.binary} report 3"
    end = client.run(1, "/usr/bin/env", "-i", "C=1", "/bin/dash", "-c", script, flags=REPORT)
    assert (end.exit_code, end.cwd) == (3, bytes(tmp_path))
    assert {b"A=x\ny", b"B=", b"C=1"} <= set(end.env)
    assert not [entry for entry in end.env if entry.startswith(b"PATH=")]


def test_nothing_of_the_report_shows_in_the_environment(client: Client) -> None:
    client.run(1, "env", flags=REPORT)
    assert client.output(1) == b"PATH=" + PATH + b"\n"


def test_a_directory_that_was_removed_is_reported_as_none(
    client: Client, supervisor: Supervisor, tmp_path: Path
) -> None:
    script = f"mkdir {tmp_path}/x; cd {tmp_path}/x; rmdir {tmp_path}/x; export A=1; exec {supervisor.binary} report 0"
    end = client.run(1, "bash", "-c", script, flags=REPORT)
    assert end.cwd == b""
    assert b"A=1" in end.env


def test_a_trap_reports_whatever_the_script_does(client: Client, supervisor: Supervisor) -> None:
    script = f"trap '{supervisor.binary} report $?' EXIT; export KEY=1; cd /usr; exit 42"
    end = client.run(1, "bash", "-c", script, flags=REPORT)
    assert (end.exit_code, end.cwd) == (42, b"/usr")
    assert b"KEY=1" in end.env


def test_the_last_report_counts(client: Client, supervisor: Supervisor) -> None:
    script = f"cd /usr; {supervisor.binary} report 1; cd /; export LAST=1; {supervisor.binary} report 0"
    end = client.run(1, "bash", "-c", script, flags=REPORT)
    assert end.cwd == b"/"
    assert b"LAST=1" in end.env


def test_without_a_report_both_are_empty(client: Client, supervisor: Supervisor) -> None:
    end = client.run(1, "true", flags=REPORT)
    assert (end.cwd, end.env) == (b"", ())
    end = client.run(2, "sh", "-c", f"exec {supervisor.binary} report 5")
    assert (end.exit_code, end.cwd, end.env) == (5, b"", ())


def test_a_report_that_is_too_large_is_dropped(client: Client, supervisor: Supervisor) -> None:
    script = f"big=$(head -c {{}} /dev/zero | tr '\\0' x); export big; exec {supervisor.binary} report 0"
    assert reporting(client, 1, script.format(60000)).cwd == b"/"
    end = reporting(client, 2, script.format(66000))
    assert (end.exit_code, end.cwd, end.env) == (0, b"", ())


def reporting(client: Client, number: int, script: str) -> events.Exit:
    return client.run(number, "bash", "-c", script, flags=REPORT)


def test_report_never_writes_into_a_file_that_is_not_the_reports(
    client: Client, supervisor: Supervisor, tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    script = f"exec 199<>{victim}; exec {supervisor.binary} report 6"
    assert client.run(1, "bash", "-c", script, flags=REPORT).exit_code == 6
    assert victim.read_text() == "mine"


@pytest.mark.parametrize(
    "data",
    [
        "b'\\xff' * 1000",
        "(0).to_bytes(4, 'little') + b'/x\\0A=1\\0'",
        "(8).to_bytes(4, 'little') + b'relative\\0'",
        "(7).to_bytes(4, 'little') + b'/x\\0A=1x'",
        "(8).to_bytes(4, 'little') + b'/x\\0NONE\\0'",
        "(6).to_bytes(4, 'little') + b'/x\\0=1\\0'",
        "(65537).to_bytes(4, 'little') + b'/x\\0A=1\\0'",
        "(65536).to_bytes(4, 'little') + b'/x\\0' + b'a=\\0' * 30000",
        "(4).to_bytes(4, 'little') + b'/x\\0\\0'",
        "b''",
    ],
)
def test_a_hostile_report_is_dropped_and_harms_nothing(client: Client, data: str) -> None:
    end = hostile(client, data)
    assert (end.exit_code, end.cwd, end.env) == (0, b"", ())
    client.sync()


def test_a_report_that_the_program_forged_well_is_only_its_own_words(client: Client) -> None:
    end = hostile(client, "(7).to_bytes(4, 'little') + b'/x\\0A=1\\0'")
    assert (end.cwd, end.env) == (b"/x", (b"A=1",))


def test_the_file_cannot_be_grown_to_hide_memory(client: Client) -> None:
    script = "import os; print(os.fstat(199).st_size); os.ftruncate(199, 1 << 30)"
    end = client.run(1, "python3", "-c", script, flags=REPORT)
    assert end.exit_code == 1
    assert int(client.output(1)) <= 66000
    end = client.run(2, "python3", "-c", "import os; os.pwrite(199, bytes(10), 1 << 20)", flags=REPORT)
    assert end.exit_code == 1


def last_state(client: Client) -> events.LastState:
    client.send(requests.state())
    return client.wait(events.LastState)


def test_the_last_report_that_counts_is_kept_for_the_next_server(supervisor: Supervisor) -> None:
    report = f"exec {supervisor.binary} report 0"
    with supervisor.claim() as client:
        assert last_state(client) == events.LastState(0, b"", b"", ())
        client.run(1, "bash", "-c", f"cd /usr; export A=1; {report}", flags=REPORT, tag=b"one")
        client.run(2, "bash", "-c", f"cd /tmp; {report}", flags=REPORT)  # has no tag
        client.run(3, "bash", "-c", f"cd /tmp; {report}", tag=b"three")  # does not report
        client.run(4, "bash", "-c", f"cd /tmp; {supervisor.binary} report 0; kill -9 $$", flags=REPORT, tag=b"four")
        client.run(5, "true", flags=REPORT, tag=b"five")
        client.shell(6, f"cd /tmp; read x; {report}", flags=REPORT | SpawnFlag.STDIN, tag=b"six")
        client.send(requests.no_report(6), requests.stdin(6, b"go\n"))
        client.wait(events.Exit, 6)
    with supervisor.claim() as client:
        found = last_state(client)
        assert (found.tag, found.cwd) == (b"one", b"/usr")
        assert b"A=1" in found.env
