"""The same content is judged the same wherever it stands: in a file, a folder, as shipped, as a key or as an option."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from taskcell.assembly import stack
from taskcell.assembly.check import find_faults
from taskcell.assembly.invocation import Invocation
from taskcell.config.shipped import shipped_manifests

ENVIRON = {"HOME": "/home/me", "TOKEN": "t"}
#: A key of the docker table, and the options of the same meaning.
CONTENTS = [
    ('network = "bridge"', ["--network", "bridge"]),
    ('memory = "64g"', ["-m", "64g"]),
    ('user = "root"', ["--user=root"]),
    ('gpus = "device=0,1"', ["--gpus", '"device=0,1"']),
    ('volumes = ["/etc:/mnt/etc"]', ["-v", "/etc:/mnt/etc"]),
    ('volumes = ["~/none:/mnt/none:ro"]', ["--volume", "~/none:/mnt/none:ro"]),
    ('environment = ["A=${TOKEN}", "B?=${NONE}"]', ["-e", "A=${TOKEN}", "-e", "B?=${NONE}"]),
    ('environment = ["A=${NONE}"]', ["-e", "A=${NONE}"]),
    ('shm_size = "3g"', ["--shm-size", "3g"]),
    ('volumes = [".:/w"]', ["-v", ".:/w"]),
]


def said(folder: Path, config: str) -> list[str]:
    """What `skills check` says, without the places."""
    (folder / "taskcell.toml").write_text(config)
    run = Invocation(ENVIRON, folder)
    return [fault.partition(": ")[2].partition(": ")[2] for fault in find_faults(run, stack.load_settings(run))]


def said_of_skill(folder: Path, docker: str, manifests: str, place: str) -> list[str]:
    file = folder / place
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f'[skills.x.docker]\nimage = "a"\n{docker}\n')
    return said(folder, f"manifests = {manifests}\n")


@pytest.mark.parametrize(("key", "options"), CONTENTS)
def test_a_skill_is_judged_alike_in_a_file_and_a_folder_and_by_key_and_option(
    tmp_path: Path, key: str, options: list[str]
) -> None:
    in_a_file = said_of_skill(tmp_path / "1", key, '["m.toml"]', "m.toml")
    in_a_folder = said_of_skill(tmp_path / "2", key, '["more"]', "more/m.toml")
    as_options = said_of_skill(tmp_path / "3", f"extra_args = {options}", '["m.toml"]', "m.toml")
    assert in_a_file == in_a_folder == as_options
    is_good = key.startswith("environment") and "NONE}" in key and "?" in key
    assert bool(in_a_file) is not is_good


@pytest.mark.parametrize("key", [key for key, _ in CONTENTS[:6]])
def test_the_terminal_is_judged_as_a_skill_is(tmp_path: Path, key: str) -> None:
    (tmp_path / "1").mkdir()
    assert said(tmp_path / "1", f"manifests = []\n[terminal]\n{key}\n") == said_of_skill(
        tmp_path / "2", key, '["m.toml"]', "m.toml"
    )


def test_the_shipped_manifests_are_judged_alike_where_they_are_copied(tmp_path: Path) -> None:
    here, config = tmp_path / "here", '[policy]\nmax_memory = "1m"\nallowed_images = []\n'
    here.mkdir()
    as_shipped = said(here, config)
    shipped = shipped_manifests()
    assert shipped is not None
    shutil.copytree(shipped, tmp_path / "there" / "manifests")
    assert as_shipped == said(tmp_path / "there", config)
    assert len(as_shipped) >= 16
