"""What the server reads off an engine's own description of itself; the descriptions were taken from real ones."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest

from taskcell.engine.docker.seccomp import OPTION, filter_option
from taskcell.engine.docker.seccomp_table import profile
from taskcell.engine.docker.traits import FilterUse, Traits, _user_base, traits_of

DOCKER = {"Components": [{"Name": "Engine"}, {"Name": "containerd"}, {"Name": "runc"}]}
PODMAN = {"Components": [{"Name": "Podman Engine"}, {"Name": "Conmon"}, {"Name": "OCI Runtime (runc)"}]}


class Described:
    """Stands where docker-py's client does, with an engine's answers."""

    def __init__(self, version: dict[str, Any], options: list[str], cgroups: str = "2") -> None:
        self._version = version
        self._info = {"SecurityOptions": options, "CgroupVersion": cgroups, "KernelVersion": os.uname().release}

    def info(self) -> dict[str, Any]:
        return self._info

    def version(self) -> dict[str, Any]:
        return self._version


def traits(*described: Any, is_here: bool = True) -> Traits:
    return traits_of(Described(*described), is_here=is_here)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["default", "builtin", "unconfined"])
def test_docker_takes_the_filter_as_text(name: str) -> None:
    assert traits(DOCKER, [f"name=seccomp,profile={name}"]) == Traits(FilterUse.TEXT)


def test_podman_takes_the_filter_as_a_file_of_its_own_machine() -> None:
    assert traits(PODMAN, ["name=seccomp,profile=default"]).filter_use is FilterUse.FILE
    far = traits(PODMAN, ["name=seccomp,profile=default"], is_here=False)
    assert far.filter_use is FilterUse.NONE
    assert "its own filter stays" in far.filter_weakness


def test_a_filter_that_the_operator_gave_the_engine_stays_and_is_named() -> None:
    found = traits(DOCKER, ["name=apparmor", "name=seccomp,profile=/etc/docker/strict.json"])
    assert found.filter_use is FilterUse.NONE
    assert "'/etc/docker/strict.json', which stays" in found.filter_weakness


def test_an_engine_without_seccomp_is_asked_for_no_filter() -> None:
    found = traits(DOCKER, ["name=apparmor"])
    assert (found.filter_use, "no seccomp filter" in found.filter_weakness) == (FilterUse.NONE, True)


def test_users_that_are_mapped_and_the_version_of_cgroups_are_seen() -> None:
    seccomp = "name=seccomp,profile=default"
    assert not traits(DOCKER, [seccomp]).maps_users
    assert traits(DOCKER, [seccomp, "name=rootless"]).maps_users
    assert traits(DOCKER, [seccomp, "name=userns"]).maps_users
    assert not traits(DOCKER, [seccomp], "1").counts_sockets
    assert traits(DOCKER, [seccomp], "2").counts_sockets


def test_the_filters_file_is_there_for_another_user_to_read_while_it_is_needed() -> None:
    with filter_option(FilterUse.FILE) as option:
        file = Path(option.removeprefix(OPTION))
        assert file.read_text() == profile()
        assert stat.S_IMODE(file.stat().st_mode) == 0o644
    assert not file.exists()
    with filter_option(FilterUse.NONE) as option:
        assert option == ""


@pytest.mark.parametrize(
    ("options", "root", "base"),
    [
        (["name=seccomp,profile=default", "name=userns"], "/var/lib/docker/100000.200000", (100000, 200000)),
        (["name=seccomp,profile=default", "name=userns"], "/var/lib/docker", (0, 0)),
        (["name=rootless"], "/home/ann/.local/share/docker/100.100", (0, 0)),
        (["name=seccomp,profile=default"], "/srv/1.2", (0, 0)),
    ],
)
def test_only_an_engine_that_remaps_users_counts_them_from_another_number(
    options: list[str], root: str, base: tuple[int, int]
) -> None:
    assert _user_base(options, root) == base
