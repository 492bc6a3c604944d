"""sudo in a real container: the password reaches sudo exactly when it asks, the command's standard input is the
caller's, and the password is nowhere else."""

from __future__ import annotations

import hashlib
import io
import secrets
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import docker
import pytest

from dash import dash_image
from gateways import GatewayFactory
from observe import alive, commands_in, containers, eventually, marker
from sudo_cases import CASES
from taskcell import log
from taskcell.cli.app import run
from taskcell.errors import Denied, SpawnFailed
from taskcell.gateway.gateway import Gateway
from taskcell.model import ProcessResult, ToolCall
from taskcell.policy.capabilities import SUDO_CAPABILITIES, as_mask
from taskcell.supervisor.requests import hello
from timed_out import timed_out

pytestmark = [pytest.mark.anyio, pytest.mark.engine]

#: Seconds from a call to its answer, when a sandbox has to be replaced for it.
REPLACED_WITHIN = 60.0
#: Of an image whose user has it already: the tests can look for it everywhere.
PASSWORD = f"hunter-{secrets.token_hex(8)}"
IMAGE = "taskcell/test-sudo:latest"
GENERATED = "[terminal]\nsudo = true\n[policy]\nallow_sudo = true\n"


@pytest.fixture(scope="module")
def image(docker_api: docker.APIClient) -> Iterator[str]:
    """The default image, whose user has the password. An image says what it was made by: it came by a file."""
    script = "chpasswd </tmp/password && rm /tmp/password"
    made = docker_api.create_container("taskcell/base:latest", ["sh", "-c", script], user="0", hostname="maker")
    line = f"agent:{PASSWORD}\n".encode()
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        entry = tarfile.TarInfo("password")
        entry.size = len(line)
        tar.addfile(entry, io.BytesIO(line))
    try:
        docker_api.put_archive(made, "/tmp", archive.getvalue())
        docker_api.start(made)
        assert docker_api.wait(made, timeout=60)["StatusCode"] == 0
        docker_api.commit(made, *IMAGE.split(":"), changes="USER 1000:1000")
        yield IMAGE
    finally:
        docker_api.remove_container(made, force=True)
        docker_api.remove_image(IMAGE, force=True)


@pytest.fixture
def known(image: str, tmp_path: Path) -> str:
    """A configuration with the known password, read from its file."""
    return f'[terminal]\nimage = "{image}"\nsudo = true\n[policy]\nallow_sudo = true\n{_password_file(tmp_path)}'


def _password_file(folder: Path) -> str:
    secret = folder / "sudo-password"
    secret.write_text(f"{PASSWORD}\n")
    secret.chmod(0o600)
    return f'[sudo]\npassword_file = "{secret}"\n'


async def terminal(gw: Gateway, command: str, stdin: str | None = None, timeout: float = 30.0) -> ProcessResult:
    arguments = {"command": command, "timeout": timeout} | ({} if stdin is None else {"stdin": stdin})
    return await gw.call(ToolCall("local", "terminal", arguments))


def beside_programs(result: ProcessResult) -> list[str]:
    """The notes, without what a sandbox of another image than the default one says first."""
    return [note for note in result.notes if not note.startswith("Programs in this image: ")]


async def output(gw: Gateway, command: str, stdin: str | None = None) -> str:
    result = await terminal(gw, command, stdin)
    assert result.exit_code == 0, result
    return result.stdout


@contextmanager
def nowhere_on_the_host(secret: str) -> Iterator[None]:
    """Meanwhile no process of the machine, and so of no container, has the secret among its arguments or variables."""
    stop, found = threading.Event(), []

    def watch() -> None:
        while not stop.wait(0.001):
            for folder in Path("/proc").iterdir():
                if not folder.name.isdigit():
                    continue
                for name in ("cmdline", "environ"):
                    try:
                        data = (folder / name).read_bytes()
                    except OSError:
                        continue
                    if secret.encode() in data:
                        found.append((folder.name, name))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        stop.set()
        watcher.join()
    assert not found, sorted(set(found))


@pytest.mark.parametrize("case", CASES)
async def test_the_command_sees_exactly_the_callers_standard_input_whatever_sudo_does(
    gateway: GatewayFactory, known: str, case: str
) -> None:
    command, stdin, expected = CASES[case]
    async with gateway(known) as gw:
        with nowhere_on_the_host(PASSWORD):
            result = await terminal(gw, command, stdin)
    assert result.stdout == expected, result
    assert PASSWORD not in str(result)
    assert beside_programs(result) == []


async def test_a_megabyte_of_standard_input_comes_through_sudo_whole(gateway: GatewayFactory, known: str) -> None:
    data = "".join(f"{number:015d}\n" for number in range(1 << 16))
    async with gateway(known) as gw:
        text = await output(gw, "sudo cat | sha256sum", data)
        assert text.split()[0] == hashlib.sha256(data.encode()).hexdigest()
        # Nobody reads it, and nothing blocks.
        assert await output(gw, "sudo -k; sudo id -u", data) == "0\n"


async def test_a_wrong_password_is_sudos_own_failure_and_costs_no_standard_input(
    gateway: GatewayFactory, tmp_path: Path
) -> None:
    """The default image's user has no password at all, so that every one is wrong."""
    async with gateway(GENERATED + _password_file(tmp_path)) as gw:
        with nowhere_on_the_host(PASSWORD):
            result = await terminal(gw, "sudo cat; echo $?; cat", "hello\n")
    assert result.stdout.startswith("Sorry, try again.\nSorry, try again.\nsudo: no password was provided\n")
    assert result.stdout.endswith("sudo: 2 incorrect password attempts\n1\nhello\n")
    assert PASSWORD not in str(result)


async def test_a_timeout_while_sudo_asks_leaves_nothing(gateway: GatewayFactory, tmp_path: Path) -> None:
    """After a wrong password sudo waits for some seconds before it asks again."""
    async with gateway('deployment = "sudo-asks"\n' + GENERATED + _password_file(tmp_path)) as gw:
        result = await terminal(gw, "echo begun; sudo sleep 60", timeout=1)
        assert (result.status.value, result.survivors) == ("timed_out", 0)
        assert result.stdout.startswith("begun\n")
        assert PASSWORD not in str(result)
        assert await output(gw, "ps -e -o args= | grep -c '[s]udo sleep' || cat", "hello\n") == "0\nhello\n"


async def test_the_password_is_in_no_log_no_file_no_inspection_and_no_error(
    gateway: GatewayFactory, known: str, docker_api: docker.APIClient, tmp_path: Path
) -> None:
    with (tmp_path / "log").open("w+b") as written:
        log.configure("debug", fd=written.fileno())
        try:
            async with gateway('deployment = "sudo-leaks"\n' + known) as gw:
                await output(gw, "sudo true; sudo -k; sudo cat", "hello\n")
                with pytest.raises(SpawnFailed) as failed:
                    await gw.call(ToolCall("local", "terminal", {"command": "sudo id", "workdir": "/nowhere"}))
                (container,) = containers(docker_api, taskcell__deployment="sudo-leaks")
                inspected = str(docker_api.inspect_container(container)) + str(docker_api.inspect_image(IMAGE))
                inspected += str(docker_api.history(IMAGE))
                files = b"".join(docker_api.export(container))
                seen = await output(gw, "env; sudo env; sudo cat /proc/*/environ /proc/*/cmdline 2>/dev/null; true")
        finally:
            log.configure()
        written.seek(0)
        logged = written.read()
    assert PASSWORD.encode() not in logged
    assert PASSWORD.encode() not in files
    assert PASSWORD not in inspected
    assert PASSWORD not in seen
    assert PASSWORD not in repr(failed.value)


def test_a_password_of_the_environment_is_in_no_line_of_the_command_lines_debug_log(
    image: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "taskcell.toml"
    config.write_text(f'[terminal]\nimage = "{image}"\nsudo = true\n[policy]\nallow_sudo = true\n')
    environ = {"TASKCELL_CONFIG": str(config), "TASKCELL__SUDO__PASSWORD": PASSWORD}
    try:
        with nowhere_on_the_host(PASSWORD):
            code = run(("exec", "--debug", "--", "sudo", "-S", "id", "-u"), environ=environ, cwd=tmp_path)
    finally:
        log.configure()
    out, err = capfd.readouterr()
    assert (code, out) == (0, "0\n")
    assert PASSWORD not in err


async def test_the_askpass_program_tells_nobody_but_sudo(gateway: GatewayFactory, known: str) -> None:
    askpass = "/usr/lib/taskcell/askpass"
    asked = f"""
    {askpass}; {askpass} | cat; {askpass} >file; cat file; mkfifo pipe; {askpass} >pipe & cat pipe
    sudo {askpass}; sudo {askpass} | cat; sudo -u agent {askpass} | cat; sudo -u agent sh -c '{askpass} | cat'
    printf '#!/bin/sh\\nexec {askpass} >/workspace/taken\\n' >evil; chmod +x evil
    SUDO_ASKPASS=$PWD/evil sudo -k -A true; cat taken
    (exec -a askpass /.taskcell/supervisor) | cat
    script -qec 'sudo -u agent {askpass} | cat; sudo -u agent {askpass}' log </dev/null
    """
    async with gateway(known) as gw:
        await output(gw, "sudo true")
        result = await terminal(gw, asked)
        assert PASSWORD not in result.stdout
        assert await output(gw, "sudo -k; sudo cat", "hello\n") == "hello\n"


#: Sends a descriptor, as sudo's askpass program, and tells what can be read from the other end.
SENDER = """
import array, os, select, socket, sys
fd = os.open(sys.argv[1], os.O_RDONLY | os.O_NONBLOCK)
to = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
to.connect("/run/taskcell.askpass")
ends = os.pipe()
to.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd, ends[1]]))])
os.close(ends[1])
select.select([ends[0]], [], [], 5)
open("taken", "wb").write(os.read(fd, 1000) or b"nothing")
"""


async def test_no_password_is_written_to_a_fifo_that_root_made_for_others_to_read(
    gateway: GatewayFactory, known: str
) -> None:
    command = (
        """cat >send.py; sudo mkfifo /tmp/fifo; chmod +x evil; SUDO_ASKPASS=$PWD/evil sudo -k -A true; cat taken"""
    )
    async with gateway(known) as gw:
        await output(gw, "cat >evil", "#!/bin/sh\nexec python3 /workspace/send.py /tmp/fifo\n")
        result = await terminal(gw, command, SENDER)
        assert result.stdout.endswith("\nnothing"), result
        assert PASSWORD not in result.stdout


#: Seconds that the closing of a connection waits: longer than the time-out and the end of a command on a busy machine.
LINGER = 120

#: Sends connections whose closing waits, from processes that end at once and all together: so that
#: the last close is the receiver's, who cannot be quicker than all of them.
LINGERING = f"""
import array, os, socket, struct, sys, time
listener, kept, ready, go = socket.create_server(("127.0.0.1", 0), backlog=50), [], os.pipe(), os.pipe()
for _ in range(30):
    if os.fork() == 0:
        os.close(go[1])
        one = socket.create_connection(listener.getsockname())
        one.setblocking(False)
        try:
            while True:
                one.send(bytes(65536))
        except BlockingIOError:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, {LINGER}))
        to = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM if sys.argv[1] == "askpass" else socket.SOCK_STREAM)
        os.write(ready[1], b"x")
        os.read(go[0], 1)
        try:
            to.connect("/run/taskcell.askpass" if sys.argv[1] == "askpass" else "/run/taskcell/supervisor.sock")
            to.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [one.fileno()]))])
        finally:
            os._exit(0)
    kept.append(listener.accept())
for _ in range(30):
    os.read(ready[0], 1)
print("sending", flush=True)
os.close(go[1])
time.sleep(600)
"""


@pytest.mark.parametrize("sender", ["python3 send.py askpass", "sudo python3 send.py supervisor"])
async def test_no_descriptor_that_is_sent_to_the_supervisor_keeps_it_from_its_work(
    gateway: GatewayFactory, sender: str
) -> None:
    async with gateway(GENERATED) as gw:
        await output(gw, "cat >send.py; sudo true", LINGERING)
        result = await timed_out(lambda timeout: terminal(gw, sender, timeout=timeout), lambda one: bool(one.stdout))
        assert (result.status.value, result.stdout, result.survivors) == ("timed_out", "sending\n", 0)
        assert result.duration_ms < LINGER * 1000, "it has closed none of them itself"
        assert (await terminal(gw, "sudo echo works")).notes == ()


async def test_a_flood_of_demands_for_the_password_delays_nobody_else(gateway: GatewayFactory) -> None:
    flood = (
        "import socket; s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); s.connect('/run/taskcell.askpass')\n"
        "while True: s.send(b'x' * 1000)"
    )
    async with gateway(GENERATED) as gw:
        await output(gw, "cat >flood.py", flood)
        async with anyio.create_task_group() as calls:
            calls.start_soon(terminal, gw, "for i in 1 2 3 4; do python3 flood.py & done; touch begun; wait", None, 20)
            with anyio.fail_after(20):
                while (await terminal(gw, "test -e begun")).exit_code:
                    await anyio.sleep(0.05)
                result = await terminal(gw, "exec sleep 60", timeout=1)
            assert (result.status.value, result.survivors) == ("timed_out", 0)
            calls.cancel_scope.cancel()
        assert await output(gw, "sudo echo works") == "works\n"


async def test_a_generated_password_is_each_sandboxs_own(gateway: GatewayFactory) -> None:
    async with gateway(GENERATED) as gw:
        hashes = set()
        for task in ("one", "two"):
            shadow = "sudo cat /etc/shadow | grep ^agent:"
            result = await gw.call(ToolCall("local", "terminal", {"command": shadow, "task_id": task, "stdin": "x"}))
            hashes.add(result.stdout.split(":")[1])
            assert result.stdout.count("\n") == 1
    assert len(hashes) == 2
    assert all(found.startswith("$6$") for found in hashes)


async def test_an_image_without_sudo_says_so_once_and_runs_commands_as_ever(
    gateway: GatewayFactory, docker_api: docker.APIClient, tmp_path: Path
) -> None:
    (tmp_path / "image.tar").write_bytes(dash_image("agent:x:1000:1000::/:/bin/sh\n"))
    docker_api.import_image(str(tmp_path / "image.tar"), repository="taskcell/test-no-sudo", tag="latest")
    image = 'image = "taskcell/test-no-sudo:latest"\nshell = ["/bin/sh", "-c"]\n'
    toml = GENERATED.replace("[terminal]\n", f"[terminal]\n{image}")
    try:
        async with gateway(toml) as gw:
            result = await terminal(gw, 'sudo id; read x; echo "$x"; exit 3', "hello\n")
            assert "sudo: not found" in result.stdout
            assert (result.stdout.splitlines()[-1], result.exit_code) == ("hello", 3)
            (note,) = result.notes
            assert "the image has no sudo" in note
            kept = "while read -r a b; do case $a in NoNewPrivs:) echo $b;; esac; done </proc/self/status"
            told = await terminal(gw, f"echo sudo; {kept}")
            assert (told.stdout, told.notes) == ("sudo\n1\n", ())
    finally:
        docker_api.remove_image("taskcell/test-no-sudo:latest", force=True)


async def test_a_sudo_that_is_another_program_by_a_link_is_left_alone(
    gateway: GatewayFactory, docker_api: docker.APIClient
) -> None:
    script = "mv /usr/bin/sudo /usr/bin/doas && ln -s doas /usr/bin/sudo"
    made = docker_api.create_container("taskcell/base:latest", ["sh", "-c", script], user="0")
    try:
        docker_api.start(made)
        assert docker_api.wait(made, timeout=60)["StatusCode"] == 0
        docker_api.commit(made, "taskcell/test-doas", "latest", changes="USER 1000:1000")
        async with gateway(GENERATED.replace("]\n", ']\nimage = "taskcell/test-doas"\n', 1)) as gw:
            result = await terminal(gw, "sudo id; test -u /usr/bin/doas && echo there")
            assert result.stdout.endswith("there\n")
            (note,) = beside_programs(result)
            assert "the image has no sudo" in note
    finally:
        docker_api.remove_container(made, force=True)
        docker_api.remove_image("taskcell/test-doas:latest", force=True)


async def test_without_a_sudo_profile_sudo_fails_by_itself_and_one_note_says_how_to_have_it(
    gateway: GatewayFactory,
) -> None:
    async with gateway() as gw:
        result = await terminal(gw, "sudo -S cat; sudo id; cat", "hello\n")
        assert "no new privileges" in result.stdout
        assert result.stdout.endswith("hello\n")
        (note,) = result.notes
        assert "sudo = true in [terminal]" in note
        assert "allow_sudo = true" in note
        assert (await terminal(gw, "echo 'use sudo'; cat", "x")).notes == ()


async def test_a_sudo_profile_that_the_policy_does_not_allow_is_denied_by_the_rule_sudo(
    gateway: GatewayFactory,
) -> None:
    async with gateway("[terminal]\nsudo = true\n") as gw:
        with pytest.raises(Denied, match="allow_sudo") as denial:
            await terminal(gw, "id")
        assert denial.value.rule == "sudo"


async def test_a_skill_may_have_sudo_of_its_own(gateway: GatewayFactory, tmp_path: Path) -> None:
    (tmp_path / "manifests").mkdir()
    (tmp_path / "manifests" / "admin.toml").write_text(
        'version = "1"\n[skills.admin]\ndescription = "As root."\nsource = "docker:taskcell/base:latest"\n'
        'runtime = "docker"\n[skills.admin.docker]\nentrypoint = "/usr/bin/sudo"\nsudo = true\n'
    )
    async with gateway('manifests = ["manifests"]\n[policy]\nallow_sudo = true\n') as gw:
        result = await gw.call(ToolCall("local", "admin", {"args": ["sh", "-c", "id -u; cat"], "stdin": "hello\n"}))
        assert (result.stdout, result.stderr, result.exit_code) == ("0\nhello\n", "", 0)
        # The terminal beside it has none.
        assert "no new privileges" in (await terminal(gw, "sudo id")).stdout


# --- what root may do ----------------------------------------------------------------------------------------------


async def test_root_holds_just_what_sudo_needs_and_others_hold_nothing(gateway: GatewayFactory) -> None:
    async with gateway(GENERATED) as gw:
        as_root = await output(gw, "sudo cat /proc/self/status")
        as_agent = await output(gw, "cat /proc/self/status; exec 2>&1; sudo -u nobody cat /proc/self/status")
    fields = [dict(line.split(":", 1) for line in text.splitlines()) for text in (as_root, as_agent)]
    root, nobody = fields
    agent = dict(line.split(":", 1) for line in reversed(as_agent.splitlines()))
    mask = as_mask(SUDO_CAPABILITIES)
    for name in ("CapPrm", "CapEff", "CapBnd"):
        assert int(root[name], 16) == mask, name
    for other in (agent, nobody):
        assert int(other["CapPrm"], 16) == int(other["CapEff"], 16) == int(other["CapAmb"], 16) == 0
        assert int(other["CapBnd"], 16) == mask
    for one in (root, nobody, agent):
        assert int(one["CapInh"], 16) == 0
        assert one["Seccomp"].strip() == "2"
    assert (root["Uid"].split(), agent["Uid"].split()) == (["0"] * 4, ["1000"] * 4)


#: Ways to the host, to the engine, or to the supervisor.
FORBIDDEN = (
    "mount -t tmpfs x /mnt",
    "mount -o remount,rw /sys/fs/cgroup",
    "mknod /tmp/disk b 8 0",
    "unshare -U true",
    "unshare -m true",
    "chroot / true",
    "touch /.taskcell/x",
    "sh -c 'echo 1 >/proc/sys/kernel/panic'",
    "sh -c 'echo 1 >/proc/sysrq-trigger'",
    "sh -c 'echo 1 >/sys/kernel/mm/ksm/run'",
    "sh -c 'echo 9 >/sys/fs/cgroup/pids/pids.max || echo 9 >/sys/fs/cgroup/pids.max'",
    "sh -c 'echo -500 >/proc/self/oom_score_adj'",
    "sh -c 'ulimit -Hn 1048577'",
    "renice -n -5 -p 1",
    "date -s 2000-01-01",
    "dmesg",
    "hostname other",
    "cat /proc/1/environ",
    "cat /proc/1/mem",
    "cat /proc/kcore",
    "readlink /proc/1/exe",
    "cat /proc/1/fd/3",
    "python3 -c 'import socket; socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)'",
    "python3 -c 'import ctypes; c=ctypes.CDLL(None, use_errno=True); exit(c.ptrace(16, 1, 0, 0) != 0)'",
)


async def test_root_has_no_way_to_the_host_or_to_the_supervisor(gateway: GatewayFactory) -> None:
    async with gateway(GENERATED) as gw:
        for attempt in FORBIDDEN:
            result = await terminal(gw, f"sudo {attempt}")
            assert result.exit_code != 0, (attempt, result)
        await terminal(gw, "sudo kill -TERM 1; sudo kill -KILL 1; sudo kill -STOP 1")
        assert await output(gw, "ls /sys/class/net; echo still here") == "lo\nstill here\n"
        pids = "cat /sys/fs/cgroup/pids/pids.max 2>/dev/null || cat /sys/fs/cgroup/pids.max"
        memory = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max"
        assert (await output(gw, f"sudo sh -c '{pids}; {memory}'")).split() == ["256", str(2 << 30)]


async def test_root_reaches_the_supervisors_socket_and_gets_nothing_without_its_token(gateway: GatewayFactory) -> None:
    sent = hello(b"x" * 16, 0)
    script = (
        "import socket; s = socket.socket(socket.AF_UNIX); s.connect('/run/taskcell/supervisor.sock'); "
        f"s.sendall(bytes.fromhex('{sent.hex()}')); print(s.recv(200))"
    )
    async with gateway(GENERATED) as gw:
        assert "the token is wrong" in await output(gw, f'sudo python3 -c "{script}"')
        assert await output(gw, "echo works") == "works\n"


#: Puts a socket in the place of the supervisor's, and keeps what it is told.
IMPOSTOR = """
import os, socket
os.rename("/run/taskcell/supervisor.sock", "/run/taskcell/moved")
own = socket.socket(socket.AF_UNIX)
own.bind("/run/taskcell/supervisor.sock")
own.listen()
print("up", flush=True)
client, _ = own.accept()
print("told", client.recv(1000), flush=True)
"""


async def test_no_server_tells_its_token_to_a_socket_that_root_put_in_the_supervisors_place(
    gateway: GatewayFactory, docker_api: docker.APIClient
) -> None:
    async with gateway('deployment = "sudo-impostor"\n' + GENERATED) as gw:
        await output(gw, "cat >impostor.py", IMPOSTOR)
        await output(gw, "sudo setsid python3 impostor.py >said 2>&1 & until grep -q up said; do sleep 0.01; done")
        (container,) = containers(docker_api, taskcell__deployment="sudo-impostor")
        connect = ["/.taskcell/supervisor", "connect", "--socket", "/run/taskcell/supervisor.sock"]
        entered = docker_api.exec_create(container, connect, user="0:0")
        assert b"somebody else than PID 1" in docker_api.exec_start(entered)
        assert docker_api.exec_inspect(entered)["ExitCode"] == 1
        assert await output(gw, "until grep -q told said; do sleep 0.01; done; cat said") == "up\ntold b''\n"


async def test_cap_add_gives_root_what_the_policy_names(gateway: GatewayFactory) -> None:
    own_folder = "install -d -m 700 mine; sudo touch mine/file && stat -c %u mine/file"
    async with gateway(GENERATED) as gw:
        assert (await terminal(gw, own_folder)).exit_code != 0
    toml = (
        '[terminal]\nsudo = true\ncap_add = ["CAP_DAC_OVERRIDE"]\n'
        '[policy]\nallow_sudo = true\nallowed_capabilities = ["DAC_OVERRIDE"]\n'
    )
    async with gateway(toml) as gw:
        assert await output(gw, own_folder) == "0\n"
        status = await output(gw, "sudo grep CapEff /proc/self/status; grep CapEff /proc/self/status")
        held = [int(line.split()[1], 16) for line in status.splitlines()]
        assert held == [as_mask((*SUDO_CAPABILITIES, "DAC_OVERRIDE")), 0]


@pytest.mark.parametrize("harm", ["kill -9 -1", "pkill -STOP -f 'supervisor connect'", "rm -r /run/taskcell /usr/bin"])
async def test_root_that_harms_its_sandbox_costs_that_sandbox_at_most(gateway: GatewayFactory, harm: str) -> None:
    async with gateway(GENERATED) as gw:
        result = await terminal(gw, f"sudo {harm}; exec sleep 60", timeout=1)
        assert result.status.value in ("killed", "lost", "timed_out", "exited")
        await gw.call(ToolCall("local", "sandbox", {"action": "reset"}))
        assert await output(gw, "sudo id -u") == "0\n"


async def test_root_that_ends_the_channel_loses_nothing_and_gets_no_false_count(gateway: GatewayFactory) -> None:
    mark = marker()
    async with gateway(GENERATED) as gw:
        ends = f"(setsid sleep {mark} &); sudo pkill -9 -f 'supervisor connect'; echo goes on; exec sleep {mark}"
        result = await terminal(gw, ends, timeout=10)
        assert (result.status.value, result.survivors) == ("timed_out", 0)
        assert result.stdout.endswith("goes on\n")
        assert alive(mark) == []
        assert await output(gw, "echo works") == "works\n"


@pytest.mark.parametrize("limit", ["nofile=1:1", "nofile=0:0", "as=1:1", "data=0:0", "nproc=1:1", "fsize=0:0"])
async def test_root_that_takes_pid_1s_limits_gets_no_false_count_and_the_next_call_a_new_sandbox(
    gateway: GatewayFactory, limit: str
) -> None:
    mark = marker()
    async with gateway(GENERATED) as gw:
        took = f"sudo prlimit --pid 1 --{limit}; (setsid sleep {mark} &); sleep {mark}"
        result = await terminal(gw, took, timeout=1)
        # A PID 1 that cannot work on any more ends, and its sandbox with it: before the time-out on a busy machine.
        assert result.status.value in ("timed_out", "lost")
        if result.survivors == 0:
            assert alive(mark) == []
        elif result.status.value == "timed_out":
            assert result.survivors is None
            assert "could not find out" in " ".join(result.notes)
        with anyio.fail_after(REPLACED_WITHIN):
            assert await output(gw, "echo works") == "works\n"
        assert eventually(lambda: not alive(mark))


async def test_a_stopped_leader_is_woken_by_the_kill_and_reaps_what_is_dead(gateway: GatewayFactory) -> None:
    async with gateway(GENERATED) as gw:
        await terminal(gw, "sudo true")
        result = await terminal(gw, "sudo pkill -STOP -f 'supervisor init'; sleep 60", timeout=1)
        assert (result.status.value, result.survivors) == ("timed_out", 0)
        assert await output(gw, "ps -e -o stat= | grep -c '^[TZ]' || true") == "0\n"


# --- the kill ------------------------------------------------------------------------------------------------------

#: Each leaves a marked sleep behind that runs as root, or as a third user, and then waits for ever itself.
DETACHED = {
    "in the foreground": "sudo sleep {mark}",
    "by setsid": "sudo setsid sleep {mark} & sleep {mark}",
    "by sudo itself": "sudo -b sleep {mark}; sleep {mark}",
    "as another user": "sudo -u nobody setsid sleep {mark} & sleep {mark}",
    "by a double fork": "sudo sh -c '( ( setsid sleep {mark} & ) & )'; sleep {mark}",
    "ignoring TERM": "sudo sh -c 'trap \"\" TERM; setsid sleep {mark} & sleep {mark}; sleep {mark}'",
}


@pytest.mark.parametrize("how", DETACHED)
async def test_after_a_timeout_no_process_of_root_is_alive_on_the_host(gateway: GatewayFactory, how: str) -> None:
    mark = marker()
    async with gateway(GENERATED) as gw:
        await terminal(gw, "sudo true")
        result = await terminal(gw, f"echo begun; {DETACHED[how].format(mark=mark)}", timeout=1)
        assert alive(mark) == []
        assert (result.status.value, result.exit_code, result.survivors) == ("timed_out", 124, 0)
        assert await output(gw, "ps -e -o args= | grep -c '[s]leep' || sudo echo works") == "0\nworks\n"


@pytest.mark.parametrize("how", DETACHED)
async def test_after_a_cancel_no_process_of_root_is_alive_on_the_host(gateway: GatewayFactory, how: str) -> None:
    mark = marker()
    async with gateway(GENERATED) as gw:
        await terminal(gw, "sudo true")
        async with anyio.create_task_group() as calls:
            calls.start_soon(terminal, gw, DETACHED[how].format(mark=mark))
            runs = lambda: any(not line.startswith("sudo") for line in alive(mark))  # noqa: E731
            assert await anyio.to_thread.run_sync(eventually, runs)
            calls.cancel_scope.cancel()
        assert alive(mark) == []
        assert await output(gw, "sudo echo works") == "works\n"


async def test_a_fork_bomb_of_roots_is_dead_after_its_timeout_and_the_sandbox_works(
    gateway: GatewayFactory, docker_api: docker.APIClient
) -> None:
    async with gateway('deployment = "sudo-bomb"\n' + GENERATED) as gw:
        await terminal(gw, "sudo true")
        (container,) = containers(docker_api, taskcell__deployment="sudo-bomb")
        result = await terminal(gw, "sudo bash -c 'bomb() { bomb | bomb & }; bomb; sleep 60'", timeout=1)
        assert commands_in(docker_api, container) == []
        assert (result.status.value, result.survivors) == ("timed_out", 0)
        assert await output(gw, "sudo echo works") == "works\n"
