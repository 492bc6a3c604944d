"""A dockerd of our own, to be stopped, frozen and filled up under running commands: no one else's is touched."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import docker

from dash import dash_image
from observe import eventually

#: The configuration for its one image: dash alone.
DASH = """[terminal]
image = "taskcell/dash:latest"
shell = ["/bin/sh", "-c"]
"""
#: Seconds for a dockerd to end, its containers first.
END_TIMEOUT = 30
CGROUPS = Path("/sys/fs/cgroup")


class MemoryBound:
    """A cgroup of our own that bounds the memory of what is started in it; `remove` it when that has ended."""

    def __init__(self, size: int) -> None:
        is_v1 = (CGROUPS / "memory").is_dir()
        self._folder = (CGROUPS / "memory" if is_v1 else CGROUPS) / f"taskcell-test-{os.getpid()}-{id(self)}"
        if not is_v1:
            (CGROUPS / "cgroup.subtree_control").write_text("+memory")
        self._folder.mkdir()
        (self._folder / ("memory.limit_in_bytes" if is_v1 else "memory.max")).write_text(str(size))
        self._peak = self._folder / ("memory.max_usage_in_bytes" if is_v1 else "memory.peak")

    @property
    def peak(self) -> int:
        """The most bytes that were in use so far; 0 where the kernel does not say."""
        return int(self._peak.read_text()) if self._peak.exists() else 0

    def around(self, argv: Sequence[str | Path]) -> list[str | Path]:
        """The command that starts another one in it."""
        return ["sh", "-c", 'echo $$ >"$0" && exec "$@"', self._folder / "cgroup.procs", *argv]

    def remove(self) -> None:
        def removed() -> bool:
            with suppress(OSError):  # what runs in it is on its way out
                self._folder.rmdir()
            return not self._folder.exists()

        assert eventually(removed), self._folder


class SecondEngine:
    """Make it, `start` it, and `remove` it in any case.

    Arguments:
        size: bytes of the file system in memory that holds its data; 0 means a plain folder.
        memory: bytes of memory that it may use itself; 0 means no bound.
        options: more of dockerd's.
    """

    def __init__(self, size: int = 0, memory: int = 0, options: Sequence[str] = ()) -> None:
        # Its sockets' paths must be short: pytest's own folders would make them longer than a socket's may be.
        self.folder = Path(tempfile.mkdtemp(prefix="taskcell-"))
        self.data = self.folder / "data-root"
        self.data.mkdir()
        if size:
            mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", self.data]
            subprocess.run(mount, check=True, capture_output=True)
        self.host = f"unix://{self.folder}/docker.sock"
        self.bound = MemoryBound(memory) if memory else None
        self._options = options
        self._daemon: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and give it its image; it has kept everything since it was stopped."""
        names = ("data-root", "exec-root", "pidfile")
        options = [f"--{name}={self.folder / name}" for name in names]
        # In a network namespace of its own: `--bridge=none` removes the default bridge, which is the first engine's.
        argv = ["unshare", "--net", "dockerd", "-H", self.host, *options, "--bridge=none", "--iptables=false"]
        argv += self._options
        if self.bound is not None:
            argv = [str(word) for word in self.bound.around(argv)]
        with (self.folder / "log").open("ab") as log:
            self._daemon = subprocess.Popen(argv, stdout=log, stderr=subprocess.STDOUT)
        assert eventually(self.answers), (self.folder / "log").read_text()[-2000:]
        if not self.has("taskcell/dash"):
            self.import_image("taskcell/dash", dash_image())

    @property
    def pid(self) -> int:
        """Of the daemon, which is in a network namespace of its own."""
        assert self._daemon is not None
        return self._daemon.pid

    def has(self, repository: str) -> bool:
        """Whether it has an image of this name."""
        api = docker.APIClient(self.host, version="auto")
        try:
            return bool(api.images(repository))
        finally:
            api.close()

    def import_image(self, repository: str, tar: bytes) -> None:
        """Make an image of a root file system's tar."""
        path = self.folder / "image.tar"
        path.write_bytes(tar)
        api = docker.APIClient(self.host, version="auto")
        try:
            api.import_image(str(path), repository=repository, tag="latest")
        finally:
            api.close()

    def stop(self) -> None:
        """As a service manager stops it: its containers end with it."""
        if self._daemon is not None:
            self.thaw()
            self._daemon.send_signal(signal.SIGTERM)
            try:
                self._daemon.wait(END_TIMEOUT)
            except subprocess.TimeoutExpired:  # it waits for something that never ends
                self._daemon.kill()
                self._daemon.wait()
            if self._daemon.returncode:
                self._end_what_is_left()
            self._daemon = None

    def freeze(self) -> None:
        """It is there, and does nothing."""
        assert self._daemon is not None
        self._daemon.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._daemon is not None
        self._daemon.send_signal(signal.SIGCONT)

    def remove(self) -> None:
        self.stop()
        for mounted in reversed(self._mounts()):
            subprocess.run(["umount", "--lazy", mounted], check=False, capture_output=True)
        shutil.rmtree(self.folder, ignore_errors=True)
        if self.bound is not None:
            self.bound.remove()

    def _mounts(self) -> list[str]:
        """What is mounted below our folder, the outer ones first."""
        points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        return [point for point in points if point.startswith(f"{self.folder}/")]

    def _end_what_is_left(self) -> None:
        """A dockerd that was killed leaves its containerd, and the shims that are the parents of its containers.

        The next one would take a containerd that is dying, or dead and not reaped, for its own.
        """
        left = self._containerds()
        for process in left:
            with suppress(OSError):
                for thread in (process / "task").iterdir():
                    for child in (thread / "children").read_text().split():
                        os.kill(int(child), signal.SIGKILL)
                os.kill(int(process.name), signal.SIGKILL)
        assert eventually(lambda: all(map(_has_ended, left)))
        (self.folder / "exec-root/containerd/containerd.pid").unlink(missing_ok=True)

    def _containerds(self) -> list[Path]:
        """The folders in /proc of the living programs of containerd that name our folder."""
        found = []
        for process in Path("/proc").iterdir():
            with suppress(OSError):
                line = (process / "cmdline").read_bytes()
                if os.fsencode(self.folder) in line and b"containerd" in line.partition(b"\0")[0]:
                    found.append(process)
        return found

    def volumes(self) -> list[str]:
        """Names of the workspaces that it has."""
        api = docker.APIClient(self.host, version="auto")
        try:
            found = api.volumes(filters={"label": "taskcell.kind=workspace"})["Volumes"] or []
        finally:
            api.close()
        return [str(volume["Name"]) for volume in found]

    def answers(self) -> bool:
        try:
            docker.APIClient(self.host, version="auto").ping()
        except docker.errors.DockerException:
            return False
        return True


def _has_ended(process: Path) -> bool:
    """Whether a process, by its folder in /proc, has no thread left. Until then its sockets stand, though its command
    line is gone with its main thread.
    """
    try:
        fields = (process / "stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return True
    return fields[0] in "ZX" and fields[17] == "1"
