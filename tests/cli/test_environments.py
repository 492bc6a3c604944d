"""The commands know the environments that tasks are opened with."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

Taskcell = Callable[..., Any]
LOCAL = 'manifests = []\n[engine]\nkind = "local"\n'
TOML = (
    LOCAL
    + """
[environments.swe]
image = "swe:1"
environment = ["WHERE=swe"]
[environments.refused]
image = "else:1"
user = "root"
own = ["/etc"]
[policy]
allowed_images = ["taskcell/*", "swe", "swe:1", "instances/*"]
task_images = ["instances/*"]
"""
)
GOOD = TOML.replace('user = "root"\nown = ["/etc"]\n', "").replace("else:1", "swe:1")


def test_a_command_runs_in_an_environment_or_with_an_image(taskcell: Taskcell) -> None:
    assert taskcell("exec", "--environment", "swe", "--", "echo $WHERE", toml=TOML).out == "swe\n"
    assert taskcell("exec", "--image", "instances/a", "--", "echo ok", toml=TOML).out == "ok\n"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--environment", "nosuch"), "There is no environment 'nosuch'; there are 'swe', 'refused'."),
        (("--image", "taskcell/other"), "matches none of policy.task_images"),
        (("--environment", "refused"), "matches none of policy.allowed_images"),
        (("--environment", "swe", "--skill", "x"), "--environment and --image are for the terminal"),
    ],
)
def test_what_it_cannot_run_in_is_told(taskcell: Taskcell, words: tuple[str, ...], says: str) -> None:
    done = taskcell("exec", *words, "--", "true", toml=TOML)
    assert done.code == 1
    assert says in done.err


def test_skills_check_judges_each_environment_with_line_and_key(taskcell: Taskcell) -> None:
    done = taskcell("skills", "check", toml=TOML)
    assert done.code == 1
    for key, rule in (("image", "allowed-images"), ("user", "root-user"), ("own", "own")):
        assert f"environments.refused.{key}: " in done.err
        assert f"(the policy's rule '{rule}')" in done.err
    assert "environments.swe" not in done.err
    assert taskcell("skills", "check", toml=GOOD).code == 0


def test_policy_explain_tells_of_an_environment_and_of_opening_one(taskcell: Taskcell) -> None:
    def explained(*words: str) -> dict[str, str]:
        done = taskcell("policy", "explain", *words, "--json", toml=TOML)
        assert done.code == 0, done.err
        return dict(json.loads(done.out))

    command = json.dumps({"command": "ls"})
    assert explained("terminal", command)["effect"] == "allow"
    assert explained("terminal", command, "--environment", "refused")["rule"] == "allowed-images"
    assert explained("read_file", '{"path": "x"}', "--image", "instances/a")["effect"] == "allow"
    opened = json.dumps({"action": "open", "image": "python:3"})
    assert explained("sandbox", opened)["rule"] == "allowed-images"
    opened = json.dumps({"action": "open", "image": "taskcell/base"})
    assert explained("sandbox", opened)["rule"] == "task-images"


def test_taskcell_tools_names_what_a_task_can_be_opened_with(taskcell: Taskcell) -> None:
    out = taskcell("tools", toml=GOOD).out
    assert "the environment 'swe': swe:1." in out
    assert "images of policy.task_images: docker.io/instances/*." in out
    assert "can be opened" not in taskcell("tools").out
