"""Container engines of several releases of Debian, each in a root, mounts and a network of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import docker

from observe import eventually

ROOT = Path(__file__).resolve().parents[2]
#: `scripts/engines.sh` makes them here.
ROOTS = ROOT / ".cache" / "engines"
#: Names the engine that tests run on; `tests/engines/run.py` sets it.
VARIABLE = "TASKCELL_ENGINE_UNDER_TEST"
#: Seconds for an engine to answer after its start, and to end.
START_TIMEOUT, END_TIMEOUT = 60, 40
#: Seconds for one request: an image of 200 MB is loaded.
CALL_TIMEOUT = 300
_DOCKERD = "dockerd -H unix://{0}/docker.sock --data-root {0}/data --exec-root {0}/exec --pidfile {0}/pid"
_NO_NETWORK = " --bridge=none --iptables=false"
#: As the user 1000, in namespaces that only a user without rights makes.
_ROOTLESS = (
    "mkdir -p /run/user/1000 && chown 1000:1000 /run/user/1000 {0} && "
    "exec setpriv --reuid=1000 --regid=1000 --init-groups env HOME=/home/rootless XDG_RUNTIME_DIR=/run/user/1000 "
    "PATH=/usr/sbin:/usr/bin:/sbin:/bin rootlesskit --net=host --copy-up=/etc --copy-up=/run "
    "sh -c 'rm -f /run/docker; exec \"$@\"' sh "
)


@dataclass(frozen=True, slots=True)
class UnderTest:
    """One engine.

    Arguments:
        name: as in the table.
        suite: the release of Debian that it is from.
        command: a line of sh that becomes the engine; `{0}` is its folder.
        settings: dockerd's configuration.
        bounds: it bounds memory, processes and processor time here.
        has_own_kernel: a sandbox does not run on the machine's kernel.
        differs: what is otherwise there, for the table.
        left_out: parts of names of tests that do not hold there. `differs`, or a comment, says why.
    """

    name: str
    suite: str
    command: str
    settings: Mapping[str, object] = field(default_factory=dict)
    bounds: bool = True
    has_own_kernel: bool = False
    differs: str = ""
    left_out: tuple[str, ...] = ()


_PODMAN_DIFFERS = (
    "A `--tmpfs` whose mode lets nobody else write is root's. Volumes on disk have no bound, and one user: another "
    "one of the task is refused there. It names each capability that it drops."
)
_PODMAN_LEFT_OUT = ("folders_in_memory", "labels_and_no_task_id", "(each_others_files and disk)")
_PODMAN = "TMPDIR={0} exec podman --root {0}/data --runroot {0}/run system service --time=0 unix://{0}/docker.sock"
ENGINES = (
    UnderTest("Docker 26.1", "trixie", f"exec {_DOCKERD}{_NO_NETWORK}"),
    UnderTest("Docker 20.10", "bookworm", f"exec {_DOCKERD}{_NO_NETWORK}"),
    UnderTest("Docker 28.5", "sid", f"exec {_DOCKERD}{_NO_NETWORK} --ip6tables=false"),
    UnderTest(
        "Docker 20.10, userns-remap",
        "bookworm",
        f"exec {_DOCKERD}{_NO_NETWORK} --userns-remap=default",
        differs="System V IPC is bounded by the sandbox's memory alone. The machine's device files are mounted one by "
        "one.",
        left_out=("system_v_ipc", "read_only_and_what_can_be_written"),
    ),
    UnderTest(
        "Docker 20.10, rootless, without cgroups",
        "bookworm",
        _ROOTLESS + _DOCKERD.replace("--exec-root {0}/exec", "--exec-root /run/user/1000/exec") + _NO_NETWORK,
        bounds=False,
        differs="Bounds nothing, so every profile is refused unless `policy.require_resource_limits` is false.",
    ),
    UnderTest("Podman 4.3", "bookworm", _PODMAN, differs=_PODMAN_DIFFERS, left_out=_PODMAN_LEFT_OUT),
    UnderTest("Podman 5.4", "trixie", _PODMAN, differs=_PODMAN_DIFFERS, left_out=_PODMAN_LEFT_OUT),
    UnderTest(
        "Docker 20.10 with gVisor (runsc)",
        "bookworm",
        f"exec {_DOCKERD}{_NO_NETWORK} --config-file {{0}}/daemon.json",
        settings={
            "runtimes": {"runsc": {"path": "/usr/bin/runsc", "runtimeArgs": ["--network=none"]}},
            "default-runtime": "runsc",
        },
        has_own_kernel=True,
        differs="A sandbox that needs more memory than it may have ends, files and all; the answer says that it may "
        "be so. No terminal (`pty`). Its kernel reports neither limits nor filters, bounds no System V IPC and no "
        "buffers of sockets by the settings of Linux, and shows commands the variables that PID 1 has, which are the "
        "image's.",
        left_out=(
            # A terminal of its kernel cannot become a session's own.
            "nothing_waits_for_a_person",
            # They look for processes among the machine's, which has none of a sandbox's.
            "kills_everything",
            "kills_it",
            # What RUN makes in a build under gVisor is not in the image, so that its user is missing.
            "folders_in_memory",
            # Its /proc and /sys have none of these.
            "no_new_privileges",
            "pids_memory_and_cpu",
            "system_v_ipc",
            "shared_memory_that_nobody_holds",
            "what_connections_hold",
            "supervisors_variables",
            # Its root is read-only too, but a command hears of the right that it lacks first.
            "read_only_and_what_can_be_written",
        ),
    ),
)
#: What cannot run on the machine that the table is made on, and why.
NOT_HERE = {
    "Docker, rootless, with cgroups": "needs cgroup v2, delegated to the user by systemd",
    "Podman, rootless, with keep-id or not": "the same: without cgroup v2 it bounds nothing, and is refused like "
    "Docker's",
    "Docker and Podman on cgroup v2": "the machine has version 1; both versions' files are read by one program, and "
    "what they say is held by tests without an engine",
    "Kata Containers": "needs /dev/kvm",
    "Docker 29": "Debian does not have it yet",
}


def under_test() -> UnderTest:
    """The engine that this process's tests run on."""
    return next(engine for engine in ENGINES if engine.name == os.environ[VARIABLE])


class RunningEngine:
    """Make it, `start` it, and `stop` it in any case. Its folder goes with it."""

    def __init__(self, engine: UnderTest) -> None:
        self.engine = engine
        self.folder = Path(tempfile.mkdtemp(prefix="taskcell-engine-", dir="/var/tmp"))
        self.folder.chmod(0o711)  # an engine may map its users to others, who must reach what is in it
        self.socket = self.folder / "docker.sock"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        (self.folder / "daemon.json").write_text(json.dumps(dict(self.engine.settings)))
        line = self.engine.command.format(self.folder)
        argv = [ROOT / "scripts/engine_in_root.sh", ROOTS / self.engine.suite, "sh", "-c", line]
        with (self.folder / "log").open("wb") as log:
            self._process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        assert eventually(self._answers, START_TIMEOUT), (self.folder / "log").read_text()[-2000:]

    def api(self) -> docker.APIClient:
        return docker.APIClient(f"unix://{self.socket}", version="auto", timeout=CALL_TIMEOUT)

    def _answers(self) -> bool:
        try:
            client = self.api()
        except docker.errors.DockerException:
            return False
        client.close()
        return True

    def load(self, image: Path) -> None:
        client = self.api()
        try:
            with image.open("rb") as file:
                for said in client.load_image(file):
                    assert "error" not in said, said
        finally:
            client.close()

    def stop(self) -> None:
        """End it and all its containers."""
        if self._process is not None:
            with suppress(docker.errors.DockerException):
                client = self.api()
                for container in client.containers(all=True):
                    client.remove_container(container["Id"], force=True, v=True)
                client.close()
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(END_TIMEOUT)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._end_what_is_left()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _end_what_is_left(self) -> None:
        """Podman's monitors stay for minutes after their containers; each has our folder in its arguments."""
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if os.fsencode(self.folder) in (process / "cmdline").read_bytes():
                    os.kill(int(process.name), signal.SIGKILL)
