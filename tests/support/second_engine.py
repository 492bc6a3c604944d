"""A dockerd of our own, to be stopped, frozen and filled up under running commands: no one else's is touched."""

from __future__ import annotations

import shutil
import signal
import subprocess
import tempfile
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


class SecondEngine:
    """Make it, `start` it, and `remove` it in any case.

    Arguments:
        size: bytes of the file system in memory that holds its data; 0 means a plain folder.
    """

    def __init__(self, size: int = 0) -> None:
        # Its sockets' paths must be short: pytest's own folders would make them longer than a socket's may be.
        self.folder = Path(tempfile.mkdtemp(prefix="taskcell-"))
        self.data = self.folder / "data-root"
        self.data.mkdir()
        if size:
            mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", self.data]
            subprocess.run(mount, check=True, capture_output=True)
        self.host = f"unix://{self.folder}/docker.sock"
        self._daemon: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and give it its image; it has kept everything since it was stopped."""
        names = ("data-root", "exec-root", "pidfile")
        options = [f"--{name}={self.folder / name}" for name in names]
        # In a network namespace of its own: `--bridge=none` removes the default bridge, which is the first engine's.
        argv = ["unshare", "--net", "dockerd", "-H", self.host, *options, "--bridge=none", "--iptables=false"]
        with (self.folder / "log").open("ab") as log:
            self._daemon = subprocess.Popen(argv, stdout=log, stderr=subprocess.STDOUT)
        assert eventually(self.answers), (self.folder / "log").read_text()[-2000:]
        (self.folder / "dash.tar").write_bytes(dash_image())
        api = docker.APIClient(self.host, version="auto")
        if not api.images("taskcell/dash"):
            api.import_image(str(self.folder / "dash.tar"), repository="taskcell/dash", tag="latest")
        api.close()

    def stop(self) -> None:
        """As a service manager stops it: its containers end with it."""
        if self._daemon is not None:
            self.thaw()
            self._daemon.send_signal(signal.SIGTERM)
            self._daemon.wait(END_TIMEOUT)
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
        subprocess.run(["umount", "-R", str(self.data)], check=False, capture_output=True)
        shutil.rmtree(self.folder, ignore_errors=True)

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
