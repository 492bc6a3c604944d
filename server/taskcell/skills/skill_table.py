"""Read one table `[skills.NAME]`: everything in it that can be read, and everything that is wrong."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from taskcell.config.container_table import ContainerTable
from taskcell.config.expansion import Expanded, expand_table
from taskcell.config.fields import Prose, Table, Word, faults
from taskcell.config.toml_source import Fault
from taskcell.skills.mcp_server import mcp_server_faults
from taskcell.skills.typed_tool import TOOL_NAME, TypedTool, check_description, read_tools
from taskcell.text import hidden_character

M = TypeVar("M", bound=BaseModel)

_SOURCE = "docker:"


def _docker_source(value: str) -> str:
    if value and (not value.startswith(_SOURCE) or value == _SOURCE):
        raise ValueError("must be 'docker:IMAGE'")
    return value


Source = Annotated[Word, AfterValidator(_docker_source)]
_SOURCED: TypeAdapter[str] = TypeAdapter(Source, config=ConfigDict(strict=True))


class SkillTable(Table):
    """A table `[skills.NAME]`."""

    description: Annotated[Prose, AfterValidator(check_description)] | None = None
    source: Source = ""
    runtime: Literal["docker"] = "docker"
    docker: ContainerTable = ContainerTable()
    tools: Any = Field(default={})


@dataclass(frozen=True, slots=True)
class ReadSkill:
    """What a table says, as far as it can be read.

    Arguments:
        docker: its container's table, without the keys that are wrong.
        faults: their keys begin at the table.
    """

    description: str
    docker: ContainerTable
    expanded: Expanded
    tools: tuple[TypedTool, ...]
    faults: tuple[Fault, ...]


def read_skill(name: str, data: object, environ: Mapping[str, str]) -> ReadSkill:
    """Read and check a skill's table. Whatever is wrong hides no other fault of the table."""
    wrong = list(_name_faults(name))
    table = None
    try:
        table = SkillTable.model_validate(data)
    except ValidationError as error:
        wrong += faults(error, SkillTable)
    else:
        wrong += _source_faults(table)
    if not isinstance(data, dict):
        return ReadSkill("", ContainerTable(), Expanded(""), (), tuple(wrong))
    docker, expanded, faulty = _docker(data, environ)
    wrong += [fault.below("docker") for fault in faulty]
    tools, faulty = read_tools(name, data.get("tools", {}))
    wrong += faulty
    wrong += mcp_server_faults(docker.image, docker.entrypoint, docker.command, docker.extra_args)
    return ReadSkill(_description(table, docker), docker, expanded, tools, tuple(wrong))


def _description(table: SkillTable | None, docker: ContainerTable) -> str:
    """Return what the author wrote, or else which program of which image the skill runs."""
    if table is not None and table.description is not None:
        return table.description.strip()
    program = (docker.entrypoint or docker.command or ("",))[0]
    named = f"`{program}`" if program and hidden_character(program) is None else "the program"
    return f"Run {named} of the image {docker.image}."


def _source_faults(table: SkillTable) -> Iterator[Fault]:
    named = table.source.removeprefix(_SOURCE)
    if named and table.docker.image and named != table.docker.image:
        differ = f"names another image than docker.image, which is {table.docker.image!r}; leave one of the two out"
        yield Fault(("source",), differ)


def _docker(data: Mapping[str, Any], environ: Mapping[str, str]) -> tuple[ContainerTable, Expanded, list[Fault]]:
    """Check and expand what is right in the docker table; what is wrong is reported with the skill's table."""
    docker, removed = _without_faults(data.get("docker", {}))
    try:
        source = _SOURCED.validate_python(data.get("source", ""))
    except ValidationError:
        source, removed = "", {*removed, "image"}
    docker = docker.model_copy(update={"image": docker.image or source.removeprefix(_SOURCE)})
    expanded, found = expand_table(docker, environ)
    # A wrong image is not a missing one.
    return docker, expanded, [fault for fault in found if fault.key[0] not in removed or docker.image]


def _without_faults(data: Any) -> tuple[ContainerTable, set[str]]:
    """Return the table without the keys that are wrong, and those keys."""
    try:
        return ContainerTable.model_validate(data), set()
    except ValidationError as error:
        wrong: set[str] = {str(detail["loc"][0]) for detail in error.errors() if detail["loc"]}
    if not isinstance(data, dict):
        return ContainerTable(), {"image"}
    try:
        return ContainerTable.model_validate({key: value for key, value in data.items() if key not in wrong}), wrong
    except ValidationError:
        return ContainerTable(), {"image", *wrong}


def _name_faults(name: str) -> Iterator[Fault]:
    if not TOOL_NAME.fullmatch(name):
        yield Fault((), "the name of a skill is 1 to 64 letters, digits, '_' or '-'")
