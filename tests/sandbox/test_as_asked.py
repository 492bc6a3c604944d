"""What a sandbox says of itself is compared with its profile, whatever the engine says. Without an engine."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent_task import Task
from gateways import GatewayFactory
from taskcell.engine.base import Container
from taskcell.errors import EngineError, SpawnFailed
from taskcell.model import Profile
from taskcell.mounts import Tmpfs
from taskcell.sandbox.as_asked import (
    MOST_IN_VARIABLE,
    MOST_IN_VARIABLES,
    check_variables,
    differences,
    parse_facts,
    unlimited,
)

PATHS = ["/", "/workspace", "/tmp"]
TMP = Tmpfs("/tmp", 8 << 20)
PROFILE = Profile("terminal", "image", "terminal", memory=64 << 20, pids=50, cpus=1.5, tmpfs=(TMP,))
CONTAINER = Container("id", "name", "/workspace", "/s", "/r", "1000:1000", is_filtered=True)
GOOD = """user 1000:1000
CapEff 0000000000000000
CapBnd 0000000000000000
NoNewPrivs 1
Seccomp 2
memory 67108864
pids 50
cpus 150000 100000
at 755 0:0 794c7630 270553174016 ro reads
at 755 1000:1000 1021994 1073741824 rw writes
at 1777 0:0 1021994 8388608 rw writes
"""


def wrong(text: str, profile: Profile = PROFILE, container: Container = CONTAINER) -> list[str]:
    facts = parse_facts(text, PATHS)
    return [*unlimited(profile, container, facts), *differences(profile, container, facts, [TMP])]


def test_a_sandbox_as_it_was_asked_for_has_no_difference() -> None:
    assert wrong(GOOD) == []


@pytest.mark.parametrize(
    ("was", "now", "said"),
    [
        ("memory 67108864", "memory max", "the memory"),
        ("memory 67108864", "memory 9223372036854771712", "the memory"),
        ("memory 67108864\n", "", "the memory"),
        ("pids 50", "pids max", "the number of processes"),
        ("pids 50\n", "", "the number of processes"),
        ("cpus 150000 100000", "cpus max 100000", "the processor time"),
        ("cpus 150000 100000", "cpus -1\nperiod 100000", "the processor time"),
        ("cpus 150000 100000", "cpus 200000 100000", "the processor time"),
        ("NoNewPrivs 1", "NoNewPrivs 0", "its commands may gain privileges (no-new-privileges)"),
        ("NoNewPrivs 1\n", "", "its commands may gain privileges (no-new-privileges)"),
        ("Seccomp 2", "Seccomp 0", "no filter of system calls is in force (seccomp)"),
        ("CapEff 0000000000000000", "CapEff 00000000a80425fb", "its commands hold capabilities"),
        ("CapBnd 0000000000000000", "CapBnd 0000000000000001", "its commands hold capabilities"),
        ("at 755 0:0", "interface eth0\nat 755 0:0", "it has a network, by eth0"),
        ("ro reads", "rw reads", "its root file system can be written"),
        ("1777 0:0 1021994", "1777 0:0 ef53", "/tmp is not a file system in memory"),
        ("8388608 rw", "8388608 ro", "/tmp cannot be written"),
        ("at 1777", "at 755", "/tmp has mode 755 instead of 1777"),
        ("8388608 rw", "16777216 rw", "/tmp holds 16 MiB instead of 8 MiB"),
    ],
)
def test_each_difference_is_said(was: str, now: str, said: str) -> None:
    assert was in GOOD
    assert wrong(GOOD.replace(was, now)) == [said]


@pytest.mark.parametrize(
    ("was", "now", "profile"),
    [
        ("cpus 150000 100000", "cpus 150000\nperiod 100000", PROFILE),
        ("memory 67108864", "memory 67104768", PROFILE),
        ("at 755 0:0", "interface eth0\nat 755 0:0", replace(PROFILE, network="bridge")),
        ("NoNewPrivs 1", "NoNewPrivs 0", replace(PROFILE, sudo=True)),
        ("CapBnd 0000000000000000", "CapBnd 00000000a80425fb", replace(PROFILE, sudo=True)),
        ("memory 67108864", "memory max", replace(PROFILE, memory=None)),
        ("NoNewPrivs 1\nSeccomp 2\nmemory 67108864\npids 50", "Seccomp 0", replace(PROFILE, runtime="runsc")),
        ("at 1777 0:0 1021994 8388608 rw writes", "at -", PROFILE),
    ],
)
def test_what_was_asked_for_is_not_a_difference(was: str, now: str, profile: Profile) -> None:
    assert was in GOOD
    assert wrong(GOOD.replace(was, now), profile) == []


def test_without_a_filter_that_was_asked_for_none_is_missed() -> None:
    assert wrong(GOOD.replace("Seccomp 2", "Seccomp 0"), container=replace(CONTAINER, is_filtered=False)) == []


@pytest.mark.parametrize("text", ["", "at", "at x 0:0 1 1 rw writes", "memory\npids -\n", "\0\n\n", GOOD[:100]])
def test_what_is_cut_or_garbled_is_a_difference_and_no_fault(text: str) -> None:
    assert wrong(text)


@pytest.mark.parametrize(
    ("env", "says"),
    [
        (
            {"A": "b", "BIG": "x" * MOST_IN_VARIABLE},
            "sets the variable 'BIG' of 128 KiB, and commands start with 128 KiB",
        ),
        ({f"V{i}": "x" * 30_000 for i in range(20)}, "sets variables of 586 KiB, and commands start with 256 KiB at"),
    ],
)
def test_an_image_with_variables_that_no_command_could_start_with_is_refused(env: dict[str, str], says: str) -> None:
    with pytest.raises(EngineError) as caught:
        check_variables(env, "odd:1")
    assert says in str(caught.value)
    assert str(caught.value).startswith("The image 'odd:1' ")


def test_an_image_may_set_as_much_as_a_request_and_linux_have_room_for() -> None:
    check_variables({"BIG": "x" * (MOST_IN_VARIABLE - 5)}, "odd:1")
    check_variables({f"V{i}": "x" * 1000 for i in range(MOST_IN_VARIABLES // 1010)}, "odd:1")


@pytest.mark.anyio
async def test_where_the_shell_does_not_start_the_answer_names_the_key_that_mends_it(gateway: GatewayFactory) -> None:
    async with gateway('manifests = []\n[terminal]\nshell = ["nosuchshell", "-c"]\n', engine="local") as gw:
        with pytest.raises(SpawnFailed, match=r"'nosuchshell'.*It is the shell.* another one by `shell`"):
            await Task(gw).terminal("true")
        await Task(gw).call("write_file", path="f", content="works")
