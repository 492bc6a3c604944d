"""The filter of system calls: in a real sandbox never weaker than the engine's own, and closed where it says so."""

from __future__ import annotations

import base64
import errno
import json
import platform
from pathlib import Path

import docker
import pytest

import bpf
import seccomp_probe
from gateways import GatewayFactory
from taskcell.engine.docker.hardening import SUPERVISOR_CAPABILITIES
from taskcell.engine.docker.seccomp_table import ABSENT, ALLOWED, PRIVILEGED, profile
from taskcell.gateway.gateway import Gateway
from taskcell.model import ToolCall
from taskcell.policy.capabilities import GRANTABLE, SUDO_CAPABILITIES

pytestmark = pytest.mark.anyio

IMAGE = "taskcell/base:latest"
#: All that the probe prints comes to 100 kB.
ROOM = "[limits]\noutput_chars = 400000\n"
SUDO = f"""[terminal]
sudo = true
cap_add = [{", ".join(f'"{name}"' for name in GRANTABLE)}]
[policy]
allow_sudo = true
allowed_capabilities = [{", ".join(f'"{name}"' for name in GRANTABLE)}]
"""
on_x86 = pytest.mark.skipif(platform.machine() != "x86_64", reason="the numbers below are those of x86_64")


@pytest.fixture(scope="session")
def probe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return seccomp_probe.build(tmp_path_factory.mktemp("probe"))


async def allowed_in(gw: Gateway, probe: Path, prefix: str = "") -> frozenset[str]:
    """What a command in a new sandbox may do."""
    program = base64.b64encode(probe.read_bytes()).decode()
    command = f"base64 -d >probe && chmod 755 probe && {prefix}./probe"
    arguments = {"command": command, "stdin": program, "timeout": seccomp_probe.PROBE_TIMEOUT, "wait": 60}
    result = await gw.call(ToolCall("local", "terminal", arguments))
    assert result.exit_code == 0, result
    return seccomp_probe.allowed(result.stdout)


@pytest.mark.engine
async def test_what_the_engines_own_filter_refuses_is_refused_in_a_sandbox(
    gateway: GatewayFactory, docker_api: docker.APIClient, probe: Path
) -> None:
    default = seccomp_probe.allowed_by_default(docker_api, IMAGE, probe, "1000:1000", SUPERVISOR_CAPABILITIES)
    async with gateway(ROOM) as gw:
        ours = await allowed_in(gw, probe)
    assert ours <= default


@pytest.mark.engine
async def test_what_the_engines_own_filter_refuses_to_root_is_refused_to_root_by_sudo(
    gateway: GatewayFactory, docker_api: docker.APIClient, probe: Path
) -> None:
    capabilities = {*SUPERVISOR_CAPABILITIES, *SUDO_CAPABILITIES, *GRANTABLE}
    default = seccomp_probe.allowed_by_default(docker_api, IMAGE, probe, "0:0", sorted(capabilities))
    async with gateway(SUDO + ROOM) as gw:
        ours = await allowed_in(gw, probe, "sudo ")
    assert ours <= default
    assert {"native netlink(9)", "native socket(16)"} <= ours  # sudo writes its audit message


@on_x86
@pytest.mark.engine
async def test_families_of_sockets_are_those_that_programs_need_however_they_are_asked_for(
    gateway: GatewayFactory, probe: Path
) -> None:
    async with gateway(ROOM) as gw:
        ours = await allowed_in(gw, probe)
    made = {line for line in ours if "socket" in line or "netlink" in line}
    families = {f"{abi} socket({family})" for abi in ("native", "i386") for family in (1, 2, 10, 16)}
    protocols = {f"{abi} netlink({protocol})" for abi in ("native", "i386") for protocol in (0, 4, 15, 16)}
    assert made == families | protocols | {"native socketpair(1)", "i386 socketpair(1)"}


@on_x86
@pytest.mark.engine
async def test_the_ways_in_of_attacks_are_closed(gateway: GatewayFactory, probe: Path) -> None:
    closed = {
        "io_uring": range(425, 428),
        "aio": range(206, 211),
        "keyrings": range(248, 251),
        "userfaultfd": [323],
        "bpf and perf": [321, 298],
        "mounts": [165, 166, 155, *range(428, 434), 442],
        "namespaces": [272, 308],
        "kexec and modules": [246, 320, 175, 176, 313],
        "other processes' memory": [310, 311, 438, 440],
    }
    async with gateway(ROOM) as gw:
        ours = await allowed_in(gw, probe)
    for what, numbers in closed.items():
        assert not {f"native {how}({nr})" for nr in numbers for how in ("zeros", "ones")} & ours, what
    assert {line for line in ours if line.startswith("x32")} == set()
    # CLONE_NEWTIME is the bit 7, which clone reads as a part of the signal.
    namespaces = {f"native clone({bit})" for bit in (17, 25, 26, 27, 28, 29, 30)}
    assert {f"native clone({bit})" for bit in range(64)} - ours == namespaces
    assert {line for line in ours if "native personality" in line} == {
        "native personality(3)",
        "native personality(17)",
    }
    assert "native zeros(101)" in ours  # ptrace: debuggers work


@pytest.mark.engine
async def test_what_is_closed_looks_like_a_kernel_without_it(gateway: GatewayFactory) -> None:
    script = """
import ctypes, errno, socket
libc = ctypes.CDLL(None, use_errno=True)
for family in range(46):
    try: socket.socket(family, socket.SOCK_DGRAM if family != 16 else socket.SOCK_RAW).close()
    except OSError as error: assert family not in (1, 2, 10, 16), family; print(family, errno.errorcode[error.errno])
for name, nr in dict(clone3=435, io_uring_setup=425).items():
    print(name, libc.syscall(nr, 0, 0), errno.errorcode[ctypes.get_errno()])
"""
    async with gateway() as gw:
        result = await gw.call(ToolCall("local", "terminal", {"command": "python3 -", "stdin": script}))
    said = dict(line.split(" ", 1) for line in result.stdout.splitlines())
    assert result.exit_code == 0, result
    assert said["clone3"] == said["io_uring_setup"] == "-1 ENOSYS"
    assert {said[str(family)] for family in range(17, 46)} == {"EAFNOSUPPORT"}


@pytest.mark.engine
def test_the_filter_says_on_aarch64_what_it_says_here() -> None:
    made = bpf.Filter(json.loads(profile()), ("aarch64", "arm"))
    for which in (0, 1):
        for call in ("openat", "execve", "futex", "ptrace", "epoll_create1", ("mmap", "mmap2")[which]):
            assert made.decide(call, architecture=which) == bpf.ALLOW, call
        for family in range(46):
            wanted = family in (1, 2, 10, 16)
            assert (made.decide("socket", family, architecture=which) == bpf.ALLOW) is wanted, family
            assert made.decide("socket", 1 << 32 | family) != bpf.ALLOW
        assert made.decide("clone", 0x11, architecture=which) == bpf.ALLOW
        assert made.decide("clone", 0x10000011, architecture=which) == errno.ENOSYS
        for call in ("clone3", "io_uring_setup", "bpf", "keyctl", "userfaultfd", "open_tree"):
            assert made.decide(call, architecture=which) == errno.ENOSYS, call
        for call in ("mount", "unshare", "setns", "reboot", "kexec_load", "swapon"):
            assert made.decide(call, architecture=which) == errno.EPERM, call


def test_no_system_call_is_named_twice() -> None:
    names = ALLOWED + ABSENT + PRIVILEGED
    assert len(set(names)) == len(names)
