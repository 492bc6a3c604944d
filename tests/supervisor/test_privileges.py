"""What a process may do: nothing that its user could not. The tests of changing the user need root, as PID 1 has it."""

from __future__ import annotations

import grp
import os
import pwd
import signal
import time
from pathlib import Path

import pytest

from supervisor_driver import Client, Supervisor, until
from taskcell.supervisor import events, protocol, requests
from taskcell.supervisor.protocol import SpawnFlag, Stream, WelcomeFlag

IS_ROOT = os.geteuid() == 0
NOBODY = pwd.getpwnam("nobody")


def status(client: Client, number: int, user: bytes) -> dict[str, list[str]]:
    assert client.run(number, "cat", "/proc/self/status", user=user).exit_code == 0
    return {
        key: rest.split()
        for key, _, rest in (line.partition(":") for line in client.output(number).decode().splitlines())
    }


def until_children(pid: int) -> list[int]:
    """The children of a process that has some, or will have."""
    path = Path(f"/proc/{pid}/task/{pid}/children")
    until(path.read_text, "a child")
    return [int(child) for child in path.read_text().split()]


def refused(client: Client, number: int, user: bytes) -> bool:
    client.spawn(number, "true", user=user)
    return client.wait(events.Failed, number).stage is protocol.FailedStage.USER


def test_welcome_tells_whether_the_user_can_be_changed(supervisor: Supervisor) -> None:
    with supervisor.connect() as client:
        assert (WelcomeFlag.CHANGES_USER in client.hello().flags) == IS_ROOT


@pytest.mark.parametrize("user", [b"", b"1234:1235"])
def test_no_capability_is_left_in_any_set(client: Client, user: bytes) -> None:
    if user and not IS_ROOT:
        assert refused(client, 1, user)
        return
    found = status(client, 1, user)
    for name in ("CapInh", "CapPrm", "CapEff", "CapAmb") + (("CapBnd",) if IS_ROOT else ()):
        assert found[name] == ["0" * 16], name


@pytest.mark.parametrize(
    ("user", "uid", "gid", "groups"),
    [
        (b"1234", 1234, 1234, [1234]),
        (b"1234:1235", 1234, 1235, [1235]),
        (b"nobody", NOBODY.pw_uid, NOBODY.pw_gid, [NOBODY.pw_gid]),
        (str(NOBODY.pw_uid).encode(), NOBODY.pw_uid, NOBODY.pw_gid, [NOBODY.pw_gid]),
        (b"nobody:daemon", NOBODY.pw_uid, grp.getgrnam("daemon").gr_gid, [grp.getgrnam("daemon").gr_gid]),
        (b"1234:daemon", 1234, grp.getgrnam("daemon").gr_gid, [grp.getgrnam("daemon").gr_gid]),
    ],
)
def test_the_user_is_changed_for_good(client: Client, user: bytes, uid: int, gid: int, groups: list[int]) -> None:
    if not IS_ROOT:
        assert uid == os.geteuid() or refused(client, 1, user)
        return
    found = status(client, 1, user)
    assert found["Uid"] == [str(uid)] * 4
    assert found["Gid"] == [str(gid)] * 4
    assert [int(group) for group in found["Groups"]] == groups
    back = "import os, sys\ntry: os.setuid(0)\nexcept PermissionError: sys.exit(5)"
    assert client.run(2, "python3", "-c", back, user=user).exit_code == 5


@pytest.mark.skipif(
    not IS_ROOT, reason="only root may change the user, and put another file in the place of /etc/group"
)
def test_a_user_has_the_groups_of_this_moment_however_often_it_was_looked_up(binary: Path, tmp_path: Path) -> None:
    groups = tmp_path / "group"
    groups.write_text("nogroup:x:65534:\nfirst:x:4001:nobody\nother:x:4002:\n")
    mounted = ["unshare", "--mount", "sh", "-c", 'mount --bind "$0" /etc/group && exec "$@"', groups]
    supervisor = Supervisor(binary, tmp_path / "run", through=mounted)
    with supervisor.claim() as client:

        def now(number: int) -> list[int]:
            return sorted(int(group) for group in status(client, number, b"nobody")["Groups"])

        # What was changed a moment ago is not remembered: the file must have been let alone for a while.
        until(lambda: time.time() - groups.stat().st_ctime > 3, "an old file")
        assert [now(1), now(2)] == [[4001, NOBODY.pw_gid]] * 2
        groups.write_text(groups.read_text().replace("4001", "4003"))
        assert now(3) == [4003, NOBODY.pw_gid], "the file is as long as before"
        groups.write_text(groups.read_text() + "more:x:4004:nobody\n")
        assert now(4) == [4003, 4004, NOBODY.pw_gid]
    supervisor.stop()


def test_the_own_user_by_number_needs_no_change(client: Client) -> None:
    user = f"{os.geteuid()}:{os.getegid()}".encode()
    assert status(client, 1, user)["Uid"] == [str(os.geteuid())] * 4


def test_a_working_directory_that_the_user_may_not_enter_fails(client: Client, tmp_path: Path) -> None:
    if not IS_ROOT:
        assert refused(client, 1, b"1234")
        return
    tmp_path.chmod(0o700)
    client.spawn(1, "true", user=b"1234", cwd=bytes(tmp_path))
    failed = client.wait(events.Failed, 1)
    assert failed.stage is protocol.FailedStage.CWD
    assert "Permission denied" in failed.message


def test_a_user_may_open_its_own_streams_and_terminal_again(client: Client) -> None:
    user = b"1234:1235" if IS_ROOT else b""
    client.run(1, "sh", "-c", "echo out >/dev/stdout; echo err >/dev/stderr", user=user)
    assert (client.output(1), client.output(1, Stream.STDERR)) == (b"out\n", b"err\n")
    client.run(2, "sh", "-c", "echo again >$(tty)", user=user, flags=SpawnFlag.PTY)
    assert client.output(2) == b"again\r\n"


def test_another_users_process_can_reach_neither_the_supervisor_nor_its_leader(
    client: Client, supervisor: Supervisor
) -> None:
    if not IS_ROOT:
        assert refused(client, 1, b"1234")
        return
    script = f"""
for pid in {supervisor.child.pid} $PPID; do
    kill -9 $pid && echo killed; cat /proc/$pid/environ && echo read; cat /proc/$pid/mem && echo memory
    ls /proc/$pid/fd && echo files
done
python3 -c 'import socket; socket.socket(socket.AF_UNIX).connect("{supervisor.path}")' && echo connected
"""
    client.run(1, "sh", "-c", script, user=b"1234:1234")
    assert client.output(1) == b""
    client.sync()


def test_the_same_user_cannot_reach_a_leader_through_its_child_that_has_not_executed_the_program_yet(
    client: Client, supervisor: Supervisor
) -> None:
    """The child has the leader's memory until then. To be run with each value of fs.suid_dumpable."""
    if not IS_ROOT:
        assert refused(client, 1, b"1234")
        return
    # It looks for the program for some seconds.
    client.spawn(1, "true", user=b"1234", env={b"PATH": b"/no/such/folder:" * 20000})
    (leader,) = until_children(supervisor.child.pid)
    (child,) = until_children(leader)
    until(lambda: "\nUid:\t1234\t" in Path(f"/proc/{child}/status").read_text(), "its user")
    os.kill(child, signal.SIGSTOP)
    stack = next(line for line in Path(f"/proc/{child}/maps").read_text().splitlines() if line.endswith("[stack]"))
    first, last = (int(number, 16) // 4096 for number in stack.split()[0].split("-"))
    place = [f"of=/proc/{child}/mem", "bs=4096", "conv=notrunc", f"seek={first}", f"count={last - first}"]
    client.run(2, "dd", "if=/dev/zero", *place, user=b"1234")
    os.kill(child, signal.SIGKILL)
    assert client.wait(events.Spawned, 1).pid == child, "its leader lives, and tells of it"
    assert client.wait(events.Exit, 1).signal == signal.SIGKILL


@pytest.mark.skipif(not IS_ROOT, reason="only root's processes may make others than themselves the kernel's choice")
def test_short_of_memory_the_kernel_takes_a_command_or_its_leader_before_the_supervisor(
    client: Client, supervisor: Supervisor
) -> None:
    def score(pid: int) -> int:
        return int(Path(f"/proc/{pid}/oom_score_adj").read_text())

    main = client.start(1, "sleep", "300")
    (leader,) = until_children(supervisor.child.pid)
    # A child that has not executed its program yet is never the kernel's choice: its leader must be.
    assert score(main) == score(leader) == 1000
    assert score(supervisor.child.pid) == int(Path("/proc/self/oom_score_adj").read_text())


def test_not_even_its_own_user_may_trace_the_supervisor(client: Client, supervisor: Supervisor) -> None:
    """Root without capabilities, or just the same user: what is not dumpable is closed to both."""
    pid = supervisor.child.pid
    client.run(1, "sh", "-c", f"cat /proc/{pid}/environ; cat /proc/{pid}/maps; cat /proc/$PPID/environ", user=b"")
    assert client.output(1) == b""


def test_the_secrets_of_the_supervisor_are_not_in_its_children(client: Client) -> None:
    client.run(1, "sh", "-c", "tr '\\0' '\\n' </proc/self/environ; tr '\\0' '\\n' </proc/self/cmdline")
    assert b"TASKCELL_TEST_SECRET" not in client.output(1)


def test_a_supervisor_that_is_no_containers_pid_1_refuses_sudo_and_touches_nothing(supervisor: Supervisor) -> None:
    def touched() -> list[tuple[int, int, int]]:
        found = [
            Path(name).lstat() for name in ("/etc/shadow", "/etc/sudo.conf", "/usr/bin/sudo") if Path(name).exists()
        ]
        return [(one.st_ino, one.st_size, one.st_mtime_ns) for one in found]

    before = touched()
    with supervisor.claim() as client:
        client.send(requests.sudo(b"1000", b"not-a-real-one", 0xFF, protocol.SudoFlag.SET_PASSWORD))
        assert "PID 1" in client.wait(events.Sudo).problem
        client.run(1, "grep", "CapBnd", "/proc/self/status")
        assert int(client.output(1).split()[1], 16) == 0
    assert touched() == before
    assert not Path("/usr/lib/taskcell").exists()
