"""Variants of a skill: `[skills.NAME.instances.VARIANT]`."""

from __future__ import annotations

from pathlib import Path

import pytest

from taskcell.assembly.check import find_faults
from taskcell.assembly.invocation import Invocation
from taskcell.assembly.stack import load_settings
from taskcell.config.settings import Settings
from taskcell.skills.manifest import Manifests, read
from taskcell.tools.catalog import build_tools

MANIFEST = """version = "1"
[skills.kube]
description = "Ask a cluster."
source = "docker:kubectl:1"
[skills.kube.docker]
entrypoint = "kubectl"
environment = ["LANG=C", "CLUSTER=none"]
memory = "256m"
[skills.kube.instances.prod]
description = "Ask the cluster of production."
docker.environment = ["CLUSTER=prod"]
[skills.kube.instances.test]
docker.memory = "512m"
docker.image = "kubectl:2"
"""
TOOL = """[skills.kube.tools.get]
description = "Get."
argv = ["get", "{what}"]
parameters.what = { type = "string" }
"""


def found(folder: Path, text: str) -> Manifests:
    (folder / "m.toml").write_text(text)
    return read([folder / "m.toml"], {}, ())


def faults(folder: Path, text: str) -> list[str]:
    return [fault.removeprefix(f"{folder}/m.toml:") for fault in found(folder, text).faults]


def test_each_variant_is_a_skill_that_shares_the_table_and_the_skill_itself_is_none(tmp_path: Path) -> None:
    prod, test = found(tmp_path, MANIFEST).skills
    assert (prod.name, prod.description, prod.image) == (
        "kube_prod", "Ask the cluster of production.", "kubectl:1",
    )  # fmt: skip
    assert prod.environment == (("LANG", "C"), ("CLUSTER", "none"), ("CLUSTER", "prod"))
    assert (prod.docker.entrypoint, prod.docker.memory) == (("kubectl",), 256 << 20)
    assert (test.name, test.description, test.image) == ("kube_test", "Ask a cluster.", "kubectl:2")
    assert (test.environment, test.docker.memory) == ((("LANG", "C"), ("CLUSTER", "none")), 512 << 20)
    assert (prod.line, test.line) == (9, 12)


def test_a_variant_has_the_typed_tools_of_its_skill_under_its_own_name(tmp_path: Path) -> None:
    tools = build_tools(Settings(), found(tmp_path, MANIFEST + TOOL).skills)
    assert {"kube_prod_get", "kube_test_get"} < set(tools)
    assert not {"kube", "kube_get", "kube_prod"} & set(tools)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ("docker.memroy = '1g'", ["15: skills.kube.instances.test.docker.memroy: unknown key; did you mean 'memory'?"]),
        ("tools = {}", ["15: skills.kube.instances.test.tools: unknown key; "]),
        ("docker.environment = ['A', 'B=1', '1=x']", [
            "15: skills.kube.instances.test.docker.environment[0]: a name alone",
            "15: skills.kube.instances.test.docker.environment[2]: '1' is not the name",
        ]),
        ("source = 'kubectl'", ["15: skills.kube.instances.test.source: must be 'docker:IMAGE'"]),
        ("description = ' '", ["15: skills.kube.instances.test.description: must say in a sentence"]),
        ("[skills.kube.instances.'a b']", ["15: skills.kube.instances.'a b': the name of a skill is 1 to 64"]),
        ("[skills.kube.instances]\nodd = 3", ["16: skills.kube.instances.odd: must be a table"]),
    ],
)  # fmt: skip
def test_a_fault_of_a_variant_is_told_at_its_own_key(tmp_path: Path, more: str, told: list[str]) -> None:
    text = MANIFEST + more + "\n"
    if "instances]" in more:
        text = MANIFEST.replace(
            "[skills.kube.instances.prod]", "[skills.kube.instances]\nodd = 3\n[skills.kube.instances.prod]"
        )
        told = [line.replace("16", "10") for line in told]
    said = faults(tmp_path, text)
    assert len(said) == len(told), said
    assert all(line.startswith(start) for line, start in zip(said, told, strict=True)), said


@pytest.mark.parametrize(
    ("shared", "own", "told"),
    [
        ("docker = 3", "docker.memory = '1g'", "2: skills.x.docker: must be a table"),
        ("docker.environment = 3", "docker.environment = ['A=1']", "2: skills.x.docker.environment: must be a list"),
        ("docker.environment = ['A=1']", "docker.environment = 3", "5: skills.x.instances.a.docker.environment: must"),
    ],
)
def test_what_a_variant_replaces_must_be_good_too(tmp_path: Path, shared: str, own: str, told: str) -> None:
    text = f"[skills.x]\n{shared}\nsource = 'docker:a'\n[skills.x.instances.a]\n{own}\n"
    (said,) = faults(tmp_path, text)
    assert said.startswith(told)


def test_a_fault_that_all_variants_share_is_told_once_at_the_skills_key(tmp_path: Path) -> None:
    (said,) = faults(tmp_path, MANIFEST.replace('memory = "256m"', "pids = 0"))
    assert said.startswith("8: skills.kube.docker.pids: must be at least 1")
    (said,) = faults(tmp_path, MANIFEST.replace('"CLUSTER=none"', '"CLUSTER"'))
    assert said.startswith("7: skills.kube.docker.environment[1]: a name alone")


def test_a_skill_whose_variants_are_no_table_is_a_fault_and_an_empty_one_has_none(tmp_path: Path) -> None:
    head = '[skills.x]\nsource = "docker:a"\n'
    assert faults(tmp_path, head + "instances = 3\n") == [
        "3: skills.x.instances: must be a table: [skills.NAME.instances.VARIANT]"
    ]
    assert [skill.name for skill in found(tmp_path, head + "instances = {}\n").skills] == ["x"]


def test_a_variable_that_one_variant_lacks_leaves_that_variant_out(tmp_path: Path) -> None:
    declared = found(tmp_path, MANIFEST.replace("CLUSTER=prod", "CLUSTER=${PROD}"))
    assert [skill.name for skill in declared.skills] == ["kube_test"]
    (left_out,) = declared.left_out
    assert left_out.name == "kube_prod"
    assert "11: skills.kube.instances.prod.docker.environment[0]: the variable PROD" in left_out.reasons[0]


def test_a_variant_whose_name_another_skill_has_names_both_places(tmp_path: Path) -> None:
    (said,) = faults(tmp_path, MANIFEST + '[skills.kube_prod]\nsource = "docker:a"\n')
    assert said.startswith("15: skills.kube_prod: is declared at ")
    assert "m.toml:9 already" in said


def test_what_the_policy_refuses_of_a_variant_is_told_where_it_is_written(tmp_path: Path) -> None:
    text = MANIFEST.replace('memory = "256m"', 'memory = "256m"\nnetwork = "bridge"')
    (tmp_path / "m.toml").write_text(text.replace('docker.memory = "512m"', 'docker.memory = "64g"'))
    (tmp_path / "taskcell.toml").write_text('manifests = ["m.toml"]\n')
    run = Invocation({}, tmp_path, tmp_path / "taskcell.toml")
    said = [line.removeprefix(f"{tmp_path}/m.toml:") for line in find_faults(run, load_settings(run))]
    assert [line.split(": ")[:2] for line in said] == [
        ["9", "skills.kube.docker.network"],
        ["9", "skills.kube.docker.network"],
        ["14", "skills.kube.instances.test.docker.memory"],
    ]
