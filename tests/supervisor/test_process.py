"""What a process finds when it starts, and what is told when it ends."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from supervisor_driver import PATH, PATIENCE, PLENTY, Client, Supervisor, alive, until
from taskcell.supervisor import events, requests
from taskcell.supervisor.protocol import FailedStage, Reason, SpawnFlag, Stream


@pytest.mark.parametrize("code", [0, 1, 3, 127, 255])
def test_the_exit_code_is_told(client: Client, code: int) -> None:
    end = client.run(1, "sh", "-c", f"exit {code}")
    assert (end.exit_code, end.signal, end.reason, end.descendants, end.oom_kills) == (code, 0, Reason.ITSELF, 0, 0)
    assert (end.report, end.report_size) == (b"", 0)
    client.wait(events.Gone, 1)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM, signal.SIGPIPE])
def test_the_signal_that_ended_it_is_told(client: Client, number: signal.Signals) -> None:
    end = client.run(1, "sh", "-c", f"kill -{int(number)} $$")
    assert (end.exit_code, end.signal) == (-1, number)


def test_a_signal_reaches_the_main_processs_group(client: Client) -> None:
    child = "trap 'echo child; exit' USR1; echo up; sleep 60 & wait"
    client.shell(1, f"trap 'echo main' USR1; ({child}) & wait; wait")
    client.wait_output(1, b"up")
    client.send(requests.signal(1, signal.SIGUSR1))
    client.wait(events.Exit, 1)
    assert {b"main", b"child"} < set(client.output(1).split())


def test_resource_use_is_told(client: Client) -> None:
    end = client.run(1, "bash", "-c", "for ((i = 0; i < 100000; i++)); do :; done; sleep 0.05")
    assert end.user_us > 10_000
    assert end.duration_us > end.user_us // 2 + 50_000
    assert end.max_rss_kb > 500


def test_nothing_is_inherited_but_what_the_request_names(client: Client) -> None:
    env = {b"PATH": PATH, b"A": b"1", b"EMPTY": b"", b"EQUALS": b"a=b=c", b"BYTES": b"\xff\n"}
    client.run(1, "env", "-0", env=env)
    assert set(client.output(1).split(b"\0")[:-1]) == {key + b"=" + value for key, value in env.items()}
    client.run(2, "/usr/bin/cat", "/proc/self/environ", env={b"PATH": b""})
    assert client.output(2) == b"PATH=\0"


def test_descriptors_signals_umask_and_group_are_those_of_a_fresh_process(client: Client) -> None:
    script = "ls /proc/self/fd | wc -l; umask; cat /proc/self/oom_score_adj; grep -E '^Sig(Blk|Ign)' /proc/self/status"
    pid = client.start(1, "sh", "-c", "sleep 0.01; ps -o pid=,pgid= $$; " + script)
    client.wait(events.Exit, 1)
    words = client.output(1).split()
    assert words[:2] == [str(pid).encode()] * 2
    assert words[2:5] == [b"4", b"0022", b"1000"], "three streams, and the folder that ls reads"
    assert words[5:] == [b"SigBlk:", b"0" * 16, b"SigIgn:", b"0" * 16]


def test_signals_are_those_of_a_fresh_process_whatever_the_supervisor_was_given(binary: Path, tmp_path: Path) -> None:
    deaf = """
import os, signal, sys
every = signal.valid_signals()
for number in every - {signal.SIGKILL, signal.SIGSTOP}: signal.signal(number, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, every)
os.execv(sys.argv[1], sys.argv[1:])
"""
    supervisor = Supervisor(binary, tmp_path / "run", through=[sys.executable, "-c", deaf])
    with supervisor.claim() as client:
        for number, flags in enumerate((SpawnFlag(0), SpawnFlag.PTY), 1):
            client.run(number, "cat", "/proc/self/status", flags=flags)
            found = dict(line.split(b":", 1) for line in client.output(number).splitlines())
            assert [found[name].strip() for name in (b"SigBlk", b"SigIgn", b"SigCgt")] == [b"0" * 16] * 3
    supervisor.stop()


def test_children_that_end_without_a_pause_do_not_hold_back_that_it_has_started(client: Client) -> None:
    # Each process leaves one behind that ends at once, and the leader hears of it.
    storm = "storm() { while :; do (: &); done; }; storm & storm & storm & storm & storm & storm & storm & storm"
    waited = 0.0
    for number in range(1, 21):
        began = time.monotonic()
        client.start(number, "sh", "-c", storm)
        waited += time.monotonic() - began
        client.send(requests.kill(number, 0))
        client.wait(events.Killed, number)
    assert waited < PATIENCE, "a start takes milliseconds; held back it takes seconds"


def test_the_limit_of_open_files_is_the_one_that_the_supervisor_was_given(client: Client) -> None:
    client.run(1, "sh", "-c", "ulimit -Sn")
    soft = os.popen("ulimit -Sn").read()
    assert client.output(1).decode() == soft


def test_the_working_directory_is_entered(client: Client, tmp_path: Path) -> None:
    client.run(1, "pwd", cwd=bytes(tmp_path))
    assert client.output(1) == bytes(tmp_path) + b"\n"


def test_stdout_and_stderr_are_kept_apart(client: Client) -> None:
    end = client.run(1, "sh", "-c", "echo out; echo error >&2")
    assert client.output(1) == b"out\n"
    assert client.output(1, Stream.STDERR) == b"error\n"
    assert (end.stdout_total, end.stderr_total) == (4, 6)


def test_merged_stderr_keeps_the_order(client: Client) -> None:
    end = client.run(1, "sh", "-c", "for i in 1 2 3 4; do echo o$i; echo e$i >&2; done", flags=SpawnFlag.MERGE_STDERR)
    assert client.output(1) == b"o1\ne1\no2\ne2\no3\ne3\no4\ne4\n"
    assert end.stderr_total == 0


def test_output_is_bytes(client: Client) -> None:
    everything = bytes(range(256))
    client.run(1, "printf", "".join(f"\\{byte:03o}" for byte in everything))
    assert client.output(1) == everything


def test_an_argument_is_bytes_too(client: Client) -> None:
    client.run(1, "printf", "%s|%s", b"\xff\xfe ;$(x)", b"")
    assert client.output(1) == b"\xff\xfe ;$(x)|"


def test_all_that_was_written_comes_before_the_exit(client: Client) -> None:
    for number in range(1, 21):
        client.run(number, "sh", "-c", "head -c 200000 /dev/zero; echo end >&2")
        assert len(client.output(number)) == 200000
        assert client.output(number, Stream.STDERR) == b"end\n"


def test_a_descendant_that_writes_for_ever_does_not_hold_back_the_exit(client: Client) -> None:
    end = client.run(1, "bash", "-c", "yes & echo $! >&2; sleep 0.2; exit 4", credit=1000)
    assert (end.exit_code, end.descendants) == (4, 1)
    client.send(requests.kill(1, 0))
    killed = client.wait(events.Killed, 1)
    assert killed.survivors == 0
    assert killed.stdout_total >= end.stdout_total
    client.wait(events.Gone, 1)
    assert not any(isinstance(event, events.Exit) for event in client.events), "one EXIT for one process"


def test_output_of_descendants_goes_on_after_the_exit_until_gone(client: Client) -> None:
    client.run(1, "bash", "-c", "exec 3<&0; (read x <&3; echo late) & echo early", flags=SpawnFlag.STDIN)
    # Its stdin was closed with the main process: the descendant reads the end, and prints.
    client.wait(events.Gone, 1)
    assert client.output(1) == b"early\nlate\n"


@pytest.mark.parametrize(
    ("options", "stage", "message"),
    [
        (
            {"argv": [b"no-such-program"]},
            FailedStage.EXEC,
            "cannot execute 'no-such-program': No such file or directory",
        ),
        ({"argv": [b"/etc/passwd"]}, FailedStage.EXEC, "cannot execute '/etc/passwd': Permission denied"),
        ({"argv": [b""]}, FailedStage.EXEC, "cannot execute ''"),
        ({"cwd": b"/no/such"}, FailedStage.CWD, "cannot enter the working directory '/no/such': No such file"),
        ({"user": b"no-such-user"}, FailedStage.USER, "there is no such user"),
        ({"user": b"0:no-such-group"}, FailedStage.USER, "there is no such group"),
        ({"user": b"4294967295"}, FailedStage.USER, "there is no such user"),
        ({"user": b":1"}, FailedStage.USER, "names"),
        ({"argv": []}, FailedStage.REQUEST, "names no program"),
        ({"flags": 256}, FailedStage.REQUEST, "unknown flag"),
        ({"env": {b"": b"x"}}, FailedStage.REQUEST, "KEY=value"),
    ],
)
def test_what_cannot_be_started_says_why_and_leaves_nothing(
    client: Client, options: dict[str, object], stage: FailedStage, message: str
) -> None:
    if os.geteuid() and stage is FailedStage.USER:
        message = ""
    request = {"argv": [b"true"], "env": {b"PATH": PATH}, "cwd": b"/"} | options
    client.send(requests.spawn(1, requests.Spawn(**request)))  # type: ignore[arg-type]
    failed = client.wait(events.Failed, 1)
    assert failed.stage is stage
    assert message in failed.message
    assert failed.errno
    client.send(requests.list_processes())
    assert client.wait(events.Listing).entries == ()
    client.run(1, "true")


def test_the_program_is_looked_up_in_the_path_that_was_given(client: Client, tmp_path: Path) -> None:
    for name in ("a", "b"):
        program = tmp_path / name / "tool"
        program.parent.mkdir()
        program.write_text(f"#!/bin/sh\necho {name} $0\n")
    (tmp_path / "b" / "tool").chmod(0o755)
    path = b":".join([b"/no/such", bytes(tmp_path / "a"), bytes(tmp_path / "b")])
    client.run(1, "tool", env={b"PATH": path})
    assert client.output(1) == b"b " + bytes(tmp_path / "b" / "tool") + b"\n"
    client.spawn(2, "tool", env={b"PATH": bytes(tmp_path / "a")})
    assert "Permission denied" in client.wait(events.Failed, 2).message
    client.run(3, "tool", env={b"PATH": b""}, cwd=bytes(tmp_path / "b"))
    client.send(requests.spawn(4, requests.Spawn([b"true"], {}, b"/")))
    client.wait(events.Spawned, 4)


def test_a_program_that_is_given_by_its_path_can_get_the_short_name(client: Client) -> None:
    client.run(1, "/bin/bash", "-c", "echo $0", flags=SpawnFlag.SHORT_NAME)
    client.run(2, "/bin/bash", "-c", "echo $0", flags=SpawnFlag.SHORT_NAME | SpawnFlag.HIDE_LAST)
    client.run(3, "bash", "-c", "echo $0", flags=SpawnFlag.SHORT_NAME)
    assert [client.output(number) for number in (1, 2, 3)] == [b"bash\n"] * 3
    client.spawn(4, "/no/such", flags=SpawnFlag.SHORT_NAME)
    assert "'/no/such'" in client.wait(events.Failed, 4).message


def test_a_timeout_kills_the_tree_and_says_so(client: Client) -> None:
    began = time.monotonic()
    client.shell(1, "trap 'echo bye; exit 7' TERM; sleep 60 & echo $!; wait", timeout_ms=300, grace_ms=600_000)
    end = client.wait(events.Exit, 1)
    assert time.monotonic() - began > 0.2
    assert (end.reason, end.exit_code) == (Reason.TIMEOUT, 7)
    assert client.wait(events.Killed, 1).reason is Reason.TIMEOUT
    client.wait(events.Gone, 1)
    child, bye = client.output(1).split()
    assert bye == b"bye"
    assert not alive(int(child))


def test_a_timeout_holds_without_a_connection(supervisor: Supervisor) -> None:
    with supervisor.claim() as client:
        pid = client.start(1, "sleep", "60", timeout_ms=300, grace_ms=100)
    until(lambda: not alive(pid), "the timeout")


def test_a_timeout_spares_what_the_main_process_left_in_the_background(client: Client) -> None:
    end = client.run(1, "bash", "-c", "sleep 60 & echo $!", timeout_ms=200)
    assert (end.reason, end.descendants) == (Reason.ITSELF, 1)
    time.sleep(0.4)
    assert alive(int(client.output(1)))
    client.sync()
    assert not any(isinstance(event, events.Killed | events.Gone) for event in client.events)


def test_a_descendant_that_ends_later_is_told_as_gone(client: Client) -> None:
    client.start(2, "bash", "-c", "setsid sleep 0.3 & exit 0")
    assert client.wait(events.Exit, 2).descendants == 1
    client.wait(events.Gone, 2)


def test_a_pty_is_a_terminal_of_the_given_size(client: Client) -> None:
    script = "tty; stty size; test -t 0 && test -t 1 && test -t 2 && echo all; echo x >/dev/tty; echo y >$(tty)"
    client.run(1, "sh", "-c", script, flags=SpawnFlag.PTY, rows=33, cols=101)
    lines = client.output(1).split(b"\r\n")
    assert lines[0].startswith(b"/dev/pts/")
    assert lines[1:] == [b"33 101", b"all", b"x", b"y", b""]


def test_a_resize_is_seen_and_signalled(client: Client) -> None:
    client.shell(1, "trap 'stty size; exit' WINCH; echo up; while :; do sleep 0.05; done", flags=SpawnFlag.PTY)
    client.wait_output(1, b"up")
    client.send(requests.resize(1, 50, 132))
    client.wait_output(1, b"50 132")


def test_control_c_and_end_of_input_work_in_a_pty(client: Client) -> None:
    client.start(
        1, "sh", "-c", "trap 'echo caught; exit 3' INT; echo up; while :; do sleep 0.1; done", flags=SpawnFlag.PTY
    )
    client.wait_output(1, b"up")
    client.send(requests.stdin(1, b"\x03"))
    assert client.wait(events.Exit, 1).exit_code == 3
    client.start(2, "cat", flags=SpawnFlag.PTY)
    client.send(requests.stdin(2, b"no newline"), requests.stdin_eof(2))
    assert client.wait(events.Exit, 2).exit_code == 0
    assert client.output(2).endswith(b"no newlineno newline")


def test_all_output_of_a_pty_comes_before_the_exit(client: Client) -> None:
    client.run(1, "sh", "-c", "seq 20000; echo end", flags=SpawnFlag.PTY)
    assert client.output(1).endswith(b"20000\r\nend\r\n")
    assert client.output(1).count(b"\n") == 20001


def test_a_pty_whose_main_process_closes_it_for_a_while_goes_on(client: Client) -> None:
    client.run(
        1, "sh", "-c", "t=$(tty); exec </dev/null >/dev/null 2>&1; sleep 0.1; echo back >$t", flags=SpawnFlag.PTY
    )
    assert client.output(1) == b"back\r\n"


def test_256_processes_run_at_once_and_one_more_is_refused(client: Client) -> None:
    for number in range(1, 257):
        client.spawn(number, "sleep", "60", credit=0)
    for number in range(1, 257):
        client.wait(events.Spawned, number)
    client.spawn(257, "true")
    assert client.wait(events.Failed, 257).stage is FailedStage.REQUEST
    client.send(requests.kill(0, 0))
    assert client.wait(events.Killed, 0).survivors == 0
    client.run(258, "true", credit=PLENTY)
