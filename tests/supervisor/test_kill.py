"""Killing: nothing of a tree lives on, however it has detached itself."""

from __future__ import annotations

import os
import platform
import signal
import time
from pathlib import Path

import pytest

from supervisor_driver import Client, Supervisor, alive, until
from taskcell.supervisor import events, requests
from taskcell.supervisor.protocol import ProcessState, Reason, SpawnFlag

SYS_EXIT = {"x86_64": 60, "aarch64": 93}[platform.machine()]
#: A program whose main thread ends while another one lives: the kernel shows such a process as a zombie.
HEADLESS = f"""
import ctypes, os, threading, time
def work():
    while open("/proc/self/stat").read().rpartition(")")[2].split()[0] != "Z": time.sleep(0.001)
    print(os.getpid(), "up", sep="\\n", flush=True)
    time.sleep(300)
threading.Thread(target=work).start()
ctypes.CDLL(None).syscall({SYS_EXIT}, 0)
"""

#: Each prints the pids of all that it starts, then "up"; none ends by itself.
SHAPES = {
    "a child": "sleep 300 & echo $$ $!; echo up; wait",
    "a session of its own": "setsid sh -c 'echo $$; exec sleep 300' & echo $$; sleep 0.2; echo up; wait",
    "nohup": "nohup sleep 300 >/dev/null & echo $$ $!; echo up; wait",
    "a double fork": "(setsid sh -c 'sleep 300 & echo $!' &) ; sleep 0.3; echo $$; echo up; sleep 300",
    "an empty environment": "env -i setsid sleep 300 & echo $$ $!; echo up; wait",
    "whoever ignores TERM": "trap '' TERM HUP INT; sleep 300 & echo $$ $!; echo up; wait; sleep 300",
    "a stopped one": "sleep 300 & kill -STOP $!; echo $$ $!; echo up; wait",
    "many": "for i in $(seq 50); do setsid sleep 300 & echo $!; done; echo $$; echo up; wait",
    "an orphan": "(sleep 300 & echo $!); echo up; exit 0",
    "one that starts others when it is told to end": (
        "trap 'for i in $(seq 5); do setsid sleep 300 & done; wait' TERM; echo $$; echo up; while :; do sleep 0.1; done"
    ),
    "one whose main thread has ended": f"exec python3 -c '{HEADLESS}'",
    "a session whose main thread has ended": f"echo $$; setsid python3 -c '{HEADLESS}' & wait",
    "an orphan whose main thread has ended": f"(setsid python3 -c '{HEADLESS}' &); exit 0",
}


def start(client: Client, script: str, number: int = 1) -> list[int]:
    client.shell(number, script)
    return [int(word) for word in client.wait_output(number, b"up\n").split()[:-1]]


def children_of(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.parametrize("grace_ms", [0, 200])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_kill_leaves_nothing(client: Client, supervisor: Supervisor, shape: str, grace_ms: int) -> None:
    pids = start(client, SHAPES[shape])
    client.send(requests.kill(1, grace_ms))
    killed = client.wait(events.Killed, 1)
    assert (killed.survivors, killed.reason) == (0, Reason.KILL)
    client.wait(events.Gone, 1)
    assert not [pid for pid in pids if alive(pid)]
    until(lambda: children_of(supervisor.child.pid) == [], "the leader's end")


def test_the_exit_with_its_reason_comes_before_killed_and_gone(client: Client) -> None:
    start(client, "echo $$; echo up; exec sleep 300")
    client.events.clear()
    client.send(requests.kill(1, 1000))
    client.wait(events.Gone, 1)
    end, killed = client.events
    assert isinstance(end, events.Exit)
    assert (end.reason, end.signal, end.exit_code) == (Reason.KILL, signal.SIGTERM, -1)
    assert isinstance(killed, events.Killed)


def test_a_process_that_ends_at_term_is_not_waited_for(client: Client) -> None:
    start(client, "sleep 300 & sleep 300 & echo up; wait")
    client.send(requests.kill(1, 600_000))
    client.wait(events.Killed, 1)


def test_one_that_uses_its_grace_to_clean_up_may_start_programs_for_that(client: Client, tmp_path: Path) -> None:
    mark = tmp_path / "cleaned"
    start(client, f"trap 'sleep 0.3; touch {mark}; exit 3' TERM; echo up; while :; do sleep 0.05; done")
    client.send(requests.kill(1, 10_000))
    assert client.wait(events.Exit, 1).exit_code == 3
    assert mark.exists()


def test_a_second_kill_shortens_the_grace(client: Client) -> None:
    start(client, "trap '' TERM; echo up; while :; do sleep 0.1; done")
    client.send(requests.kill(1, 600_000))
    client.sync()
    client.send(requests.kill(1, 0))
    assert client.wait(events.Killed, 1).survivors == 0
    client.wait(events.Gone, 1)
    client.sync()
    assert not any(isinstance(event, events.Killed) for event in client.events)


def test_a_kill_of_what_is_gone_answers_at_once(client: Client) -> None:
    client.run(1, "echo", "x")
    client.wait(events.Gone, 1)
    client.send(requests.kill(1, 60_000))
    assert client.wait(events.Killed, 1) == events.Killed(1, Reason.KILL, 0, 2, 0)


def test_a_kill_before_the_program_has_started_works(client: Client) -> None:
    for number in range(1, 21):
        client.spawn(number, "sleep", "300")
        client.send(requests.kill(number, 0))
    for number in range(1, 21):
        assert client.wait(events.Killed, number).survivors == 0
        client.wait(events.Gone, number)
        assert client.wait(events.Exit, number).reason is Reason.KILL


def test_other_processes_are_spared(client: Client) -> None:
    pid = start(client, "echo $$; echo up; exec sleep 300", 1)
    start(client, "setsid sleep 300 & echo up; wait", 2)
    client.send(requests.kill(2, 0))
    client.wait(events.Killed, 2)
    assert alive(*pid)


@pytest.mark.parametrize("whose", ["another leader", "another main process", "the supervisor"])
def test_who_has_joined_a_foreign_group_does_not_draw_it_into_its_end(
    client: Client, supervisor: Supervisor, whose: str
) -> None:
    (spared,) = start(client, "echo $$; echo up; exec sleep 300", 1)
    (leader,) = children_of(supervisor.child.pid)
    group = {"another leader": leader, "another main process": spared, "the supervisor": supervisor.child.pid}[whose]
    joining = (
        f"import os, time\ntry: os.setpgid(0, {group})\nexcept OSError: pass\nprint('up', flush=True)\ntime.sleep(300)"
    )
    client.shell(2, f"python3 -c '{joining.replace(chr(39), chr(34))}'; sleep 300")
    client.wait_output(2, b"up")
    client.send(requests.kill(2, 0))
    assert client.wait(events.Killed, 2).survivors == 0
    client.sync()
    assert alive(spared)
    assert alive(leader)


def test_killing_process_0_kills_everything_with_one_answer(client: Client) -> None:
    pids = [pid for number, shape in enumerate(SHAPES, 1) for pid in start(client, SHAPES[shape], number)]
    client.send(requests.kill(0, 100))
    assert client.wait(events.Killed).process == 0
    ends = {event.process: event.reason for event in client.events if isinstance(event, events.Exit)}
    assert set(ends) == set(range(1, len(SHAPES) + 1))
    assert set(ends.values()) == {Reason.KILL, Reason.ITSELF}, "the one whose main process had ended before"
    assert not [pid for pid in pids if alive(pid)]
    assert not any(isinstance(event, events.Killed) for event in client.events)


def test_killing_everything_where_nothing_runs_answers_at_once(client: Client) -> None:
    client.send(requests.kill(0, 60_000))
    assert client.wait(events.Killed, 0) == events.Killed(0, Reason.KILL, 0, 0, 0)


def test_a_killed_leaders_orphans_die_with_it(client: Client, supervisor: Supervisor) -> None:
    pids = start(client, "trap '' TERM; setsid sleep 300 & (setsid sleep 300 &); echo $$ $!; echo up; wait")
    (leader,) = children_of(supervisor.child.pid)
    os.kill(leader, signal.SIGKILL)
    end = client.wait(events.Exit, 1)
    assert (end.signal, end.reason) == (signal.SIGKILL, Reason.ITSELF)
    client.wait(events.Gone, 1)
    assert not [pid for pid in pids if alive(pid)]
    assert children_of(supervisor.child.pid) == []
    client.run(2, "true")


def test_a_leader_that_is_killed_after_the_exit_takes_the_background_along(
    client: Client, supervisor: Supervisor
) -> None:
    pids = start(client, "sleep 300 & echo $!; echo up; exit 4")
    assert client.wait(events.Exit, 1).exit_code == 4
    os.kill(children_of(supervisor.child.pid)[0], signal.SIGKILL)
    client.wait(events.Gone, 1)
    assert not alive(*pids)
    assert not any(isinstance(event, events.Exit) for event in client.events)


def test_a_stopped_leader_does_not_save_its_tree(client: Client, supervisor: Supervisor) -> None:
    pids = start(client, "sleep 300 & echo $$ $!; echo up; wait")
    (leader,) = children_of(supervisor.child.pid)
    os.kill(leader, signal.SIGSTOP)
    client.send(requests.kill(1, 0))
    killed = client.wait(events.Killed, 1)
    assert killed.survivors == 0
    assert client.wait(events.Exit, 1).reason is Reason.KILL
    assert not [pid for pid in pids if alive(pid)]
    # The kill has woken it up, or nobody would ever reap them.
    client.wait(events.Gone, 1)
    until(lambda: children_of(supervisor.child.pid) == [], "the leader to end")


def test_a_process_whose_main_thread_has_ended_counts_as_alive(client: Client) -> None:
    client.shell(1, f"setsid python3 -c '{HEADLESS}' & read -r line; exit 3", flags=SpawnFlag.STDIN)
    client.wait_output(1, b"up\n")
    client.send(requests.stdin(1, b"end\n"))
    assert client.wait(events.Exit, 1).descendants == 1
    client.send(requests.list_processes())
    (entry,) = client.wait(events.Listing).entries
    assert entry.state is ProcessState.EXITED


def test_zombies_do_not_pile_up(client: Client, supervisor: Supervisor) -> None:
    for number in range(1, 41):
        client.run(number, "bash", "-c", "for i in 1 2 3; do (true &); done; (setsid true &)")
        client.wait(events.Gone, number)
    until(lambda: children_of(supervisor.child.pid) == [], "the leaders to be reaped")


@pytest.mark.parametrize("session", ["", "os.setsid()"])
def test_a_fork_bomb_is_dead_soon(client: Client, session: str) -> None:
    # A hundred processes that live for 20 ms each and leave another one behind: this host has no limit of pids for us.
    bomb = f"""
import os, time
for _ in range(99):
    if os.fork() == 0: break
while True:
    {session or "pass"}
    end = time.monotonic() + 0.02
    while time.monotonic() < end: pass
    if os.fork(): os._exit(0)
"""
    client.start(1, "python3", "-c", bomb, credit=0)
    time.sleep(0.5)
    client.send(requests.kill(1, 0))
    assert client.wait(events.Killed, 1).survivors == 0
    client.wait(events.Gone, 1)
