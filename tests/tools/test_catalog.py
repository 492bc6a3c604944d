"""Rules meet the tools that there are: what they read, what they are about, and names that nothing has."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateways import OWN_TOOLS
from taskcell.assembly.invocation import Invocation
from taskcell.assembly.stack import load_settings
from taskcell.config.settings import Settings
from taskcell.errors import ConfigError
from taskcell.model import ToolCall
from taskcell.policy.policy import Effect, Policy
from taskcell.skills.manifest import load
from taskcell.tools.catalog import build_tools, built_in, built_in_names
from taskcell.tools.tool import Tool

MANIFEST = """
version = "1"

[skills.py]
description = "Run Python."
source = "docker:taskcell/base:latest"
runtime = "docker"

[skills.py.docker]
entrypoint = []

[skills.py.tools.run]
description = "Run a script."
argv = ["python3", "-"]
stdin = "{code}"

[skills.py.tools.run.parameters]
code = { type = "string", description = "The script." }
"""


def made(folder: Path, rule: str) -> tuple[Policy, dict[str, Tool]]:
    (folder / "py.toml").write_text(MANIFEST)
    (folder / "taskcell.toml").write_text(
        f'manifests = ["py.toml"]\n[[policy.rules]]\nname = "r"\neffect = "deny"\n{rule}'
    )
    settings = load_settings(Invocation({}, folder, folder / "taskcell.toml"))
    return Policy(settings.policy), build_tools(settings, load(settings.manifest_paths, {}, built_in_names()))


@pytest.mark.parametrize(
    ("rule", "denied"),
    [
        ("command = 'os\\.system'", True),
        ("tool = 'py'\ncommand = 'os\\.system'", True),
        ("tool = 'py_run'\ncommand = '^python3 -'", True),
        ("tool = 'jq*'\ncommand = 'os'", False),
    ],
)
def test_a_rule_reads_a_typed_tools_whole_command_with_what_goes_to_its_stdin(
    rule: str, denied: bool, tmp_path: Path
) -> None:
    policy, tools = made(tmp_path, rule)
    command = tools["py_run"].bind(ToolCall("local", "py_run", {"code": "import os; os.system('x')"}))
    assert (policy.decide(command).effect is Effect.DENY) == denied


@pytest.mark.parametrize(
    ("rule", "denied"),
    [
        ("tool = 'read_file'", True),
        ("tool = '*_file'", True),
        ("command = '^/workspace/a/b$'", True),
        ("tool = 'terminal'", False),
        ("tool = 'write_file'", False),
        ("tool = 'read_file'\ncommand = '\\.\\.'", False),
    ],
)
def test_a_rule_about_a_file_tool_reads_the_absolute_path(rule: str, denied: bool, tmp_path: Path) -> None:
    policy, tools = made(tmp_path, rule)
    command = tools["read_file"].bind(ToolCall("local", "read_file", {"path": "x/../a//b"}))
    assert (policy.decide(command).effect is Effect.DENY) == denied


def test_a_rule_about_a_tool_that_nothing_has_is_an_error_with_the_nearest_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"rule 'r' is about the tool 'terminall'.*did you mean 'terminal'"):
        made(tmp_path, "tool = 'terminall'")
    made(tmp_path, "tool = 'read_file'")  # a name that the server keeps for itself


def test_every_built_in_tool_has_the_name_that_its_module_declares_and_no_other_has_it() -> None:
    declared = [name for tools in built_in() for name in tools.names]
    made = [tool.name for tools in built_in() for tool in tools.make(Settings())]
    assert made == declared == OWN_TOOLS
    assert list(build_tools(Settings(), [])) == OWN_TOOLS


def test_tools_are_listed_with_taskcells_own_first_and_those_of_skills_by_name(tmp_path: Path) -> None:
    skill = '[skills.{0}]\ndescription = "A skill."\nsource = "docker:taskcell/base:latest"\n'
    (tmp_path / "m.toml").write_text('version = "1"\n' + skill.format("zip") + skill.format("awk"))
    skills = load([tmp_path / "m.toml"], {}, built_in_names())
    assert list(build_tools(Settings(), skills)) == [*OWN_TOOLS, "awk", "zip"]
