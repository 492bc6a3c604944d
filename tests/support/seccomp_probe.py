"""What the filter of system calls around a program lets through, asked call by call in a real container."""

from __future__ import annotations

import io
import os
import platform
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path

import docker

SOURCE = Path(__file__).with_suffix(".c")
#: Zig compiles musl itself at its first use: a minute, several on a busy machine.
BUILD_TIMEOUT = 900
#: Five thousand forks: three seconds on an idle machine.
PROBE_TIMEOUT = 120


def build(folder: Path) -> Path:
    """The probe as a static program for this machine's containers."""
    made = folder / "probe"
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine().lower(), platform.machine())
    zig = [sys.executable, "-m", "ziglang", "cc", "-target", f"{machine}-linux-musl", "-Os", "-static", "-s"]
    subprocess.run([*zig, str(SOURCE), "-o", str(made)], check=True, timeout=BUILD_TIMEOUT, env=dict(os.environ))
    return made


def allowed(text: str) -> frozenset[str]:
    """What the probe printed; it must have come to its end."""
    *lines, last = text.splitlines()
    assert last.startswith("asked "), text[-500:]
    assert int(last.split()[1]) > len(lines) > 0
    return frozenset(lines)


def allowed_by_default(
    api: docker.APIClient, image: str, probe: Path, user: str, capabilities: Sequence[str]
) -> frozenset[str]:
    """What the engine's own filter allows in a container with these capabilities."""
    host = api.create_host_config(cap_drop=["ALL"], cap_add=list(capabilities), network_mode="none")
    made = api.create_container(image, ["/probe"], entrypoint=[], user=user, host_config=host)["Id"]
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        tar.add(probe, arcname="probe")
    try:
        api.put_archive(made, "/", archive.getvalue())
        api.start(made)
        api.wait(made, timeout=PROBE_TIMEOUT)
        return allowed(api.logs(made).decode())
    finally:
        api.remove_container(made, force=True)
