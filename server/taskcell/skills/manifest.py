"""Read skill manifests: TOML files that say which container serves which tool."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError

from taskcell.config.container_table import ContainerTable, Expanded, expand_environment, expand_table
from taskcell.config.fields import Prose, Table, Texts, Word, faults
from taskcell.config.toml_source import Fault, Key, TomlSource, UnreadableToml
from taskcell.errors import ManifestError
from taskcell.model import Mount
from taskcell.skills.manifest_files import manifest_files
from taskcell.skills.typed_tool import TOOL_NAME, TypedTool, check_description, read_tools
from taskcell.skills.variants import Variant, variants
from taskcell.text import hidden_character

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


class DefaultsTable(Table):
    """The table `[defaults]`: what every skill of the file begins with."""

    environment: Texts = Field(default=(), repr=False)


class ManifestTable(Table):
    """A whole manifest. Each skill is checked apart from it, so that one bad table hides no fault of another."""

    version: Literal["1"] = "1"
    defaults: DefaultsTable = DefaultsTable()
    skills: dict[str, Any] = Field(default={})


@dataclass(frozen=True, slots=True)
class Skill:
    """A skill whose table has no faults.

    Arguments:
        docker: its table as it is written; `image`, `environment`, `mounts` and `extra_args` have its
            variables filled in.
        environment: the file's defaults, then the skill's own. The values may be secret.
        tools: its typed tools; empty if the skill is one free-form tool of its own name.
        file, line, key: where it is declared.
    """

    name: str
    description: str
    docker: ContainerTable
    image: str
    environment: tuple[tuple[str, str], ...] = field(repr=False)
    mounts: tuple[Mount, ...]
    file: Path
    line: int | None
    tools: tuple[TypedTool, ...] = ()
    extra_args: tuple[str, ...] = field(default=(), repr=False)
    key: Key = ()

    @property
    def tool_names(self) -> tuple[str, ...]:
        """The names of the MCP tools that the skill provides."""
        return tuple(tool.name for tool in self.tools) or (self.name,)

    @property
    def place(self) -> str:
        return f"{self.file}:{self.line}" if self.line else str(self.file)


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A skill that cannot be used, because a variable that it needs is not set; the file itself is good.

    Arguments:
        tool_names: the MCP tools that it would provide.
        reasons: one for each variable, as `FILE:LINE: key: sentence`.
    """

    name: str
    tool_names: tuple[str, ...]
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Manifests:
    """What all manifests declare.

    Arguments:
        faults: each as `FILE:LINE: key: sentence`, without the line where it is not known.
    """

    skills: tuple[Skill, ...]
    left_out: tuple[LeftOut, ...]
    faults: tuple[str, ...]


def load(paths: Sequence[Path], environ: Mapping[str, str], reserved: Collection[str]) -> tuple[Skill, ...]:
    """Read manifests in which everything must be good, with the arguments of `read`.

    Raises ManifestError: it has every fault, and every variable that is not set.
    """
    found = read(paths, environ, reserved)
    wrong = [*found.faults, *(reason for skill in found.left_out for reason in skill.reasons)]
    if wrong:
        raise ManifestError(wrong)
    return found.skills


def read(paths: Sequence[Path], environ: Mapping[str, str], reserved: Collection[str]) -> Manifests:
    """Read and check all manifests.

    Arguments:
        paths: TOML files, or folders whose `*.toml` files are read, in order of name.
        environ: the server's environment, for `${VAR}`.
        reserved: names of taskcell's own tools, which a skill's tool would hide.
    """
    wrong: list[str] = []
    skills: dict[str, Skill] = {}
    givers: dict[str, Skill] = {}
    left_out: list[LeftOut] = []
    for file in manifest_files(paths, wrong):
        try:
            source = TomlSource.read(file)
        except UnreadableToml as error:
            wrong.append(str(error))
            continue
        found, unset, faulty = _read(source, environ, reserved)
        wrong += [source.describe(fault) for fault in faulty]
        left_out += unset
        for skill in found:
            first = skills.setdefault(skill.name, skill)
            if first is not skill:
                fault = Fault(skill.key, f"is declared at {first.place} already; rename one of the two")
                wrong.append(source.describe(fault))
            else:
                wrong += [source.describe(fault) for fault in _collisions(skill, givers, reserved)]
    return Manifests(tuple(skills.values()), tuple(left_out), tuple(wrong))


def _collisions(skill: Skill, givers: dict[str, Skill], reserved: Collection[str]) -> Iterator[Fault]:
    """Report tools of a skill whose names are taken, by a skill in `givers` or by taskcell itself."""
    for full in skill.tool_names:
        key = (*skill.key, *(("tools", full.removeprefix(f"{skill.name}_")) if skill.tools else ()))
        first = givers.setdefault(full, skill)
        if full in reserved:
            yield Fault(key, f"its name would be '{full}', as that of one of taskcell's own tools is; choose another")
        elif first is not skill:
            yield Fault(key, f"its name would be '{full}', as a tool of '{first.name}' at {first.place}; rename one")


def _read(
    source: TomlSource, environ: Mapping[str, str], reserved: Collection[str]
) -> tuple[list[Skill], list[LeftOut], list[Fault]]:
    """Return the good skills of one file, those that lack a variable, and the faults of the others."""
    wrong: list[Fault] = []
    defaults = DefaultsTable()
    try:
        defaults = ManifestTable.model_validate(source.data).defaults
    except ValidationError as error:
        wrong += faults(error, ManifestTable)
    shared, found = expand_environment(defaults.environment, environ)
    of_all = [fault.below("defaults") for fault in found]
    wrong += [fault for fault in of_all if not fault.is_unset]
    tables = source.data.get("skills", {})
    is_table = isinstance(tables, dict)
    skills, left_out = [], []
    declared = [variant for name, data in tables.items() for variant in variants(name, data)] if is_table else []
    for variant in declared:
        if variant.faults:
            wrong += variant.faults
            continue
        skill, found = _skill(variant, shared, environ, source)
        if variant.name in reserved:
            found.insert(0, Fault((), f"'{variant.name}' is the name of one of taskcell's own tools; choose another"))
        placed = [variant.placed(fault) for fault in found]
        faulty = [fault for fault in placed if not fault.is_unset]
        unset = [fault for fault in (*of_all, *placed) if fault.is_unset]
        wrong += faulty
        if skill is None or faulty:
            continue
        if unset:
            left_out.append(LeftOut(skill.name, skill.tool_names, tuple(map(source.describe, unset))))
        else:
            skills.append(skill)
    # Once, though several variants share what is wrong.
    return skills, left_out, list(dict.fromkeys(wrong))


def _skill(
    variant: Variant, shared: tuple[tuple[str, str], ...], environ: Mapping[str, str], source: TomlSource
) -> tuple[Skill | None, list[Fault]]:
    """Return a skill, None if its table is faulty, and what is wrong; a skill that lacks a variable is not whole."""
    name, data = variant.name, variant.data
    wrong = list(_name_faults(name))
    table = None
    try:
        table = SkillTable.model_validate(data)
    except ValidationError as error:
        wrong += faults(error, SkillTable)
    else:
        wrong += _source_faults(table)
    if not isinstance(data, dict):
        return None, wrong
    docker, expanded, faulty = _docker(data, environ)
    wrong += [fault.below("docker") for fault in faulty]
    tools, faulty = read_tools(name, data.get("tools", {}))
    wrong += faulty
    if table is None or not all(fault.is_unset for fault in wrong):
        return None, wrong
    skill = Skill(
        name,
        _description(table, docker),
        docker,
        expanded.image,
        shared + expanded.environment,
        expanded.mounts,
        source.path,
        source.line(variant.key),
        tools,
        expanded.extra_args,
        variant.key,
    )
    return skill, wrong


def _description(table: SkillTable, docker: ContainerTable) -> str:
    """Return what the author wrote, or else which program of which image the skill runs."""
    if table.description is not None:
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
    """Check and expand the docker table apart from the skill's, so that no other fault hides one of its own."""
    try:
        docker = ContainerTable.model_validate(data.get("docker", {}))
        source = _SOURCED.validate_python(data.get("source", ""))
    except ValidationError:
        return ContainerTable(), Expanded(""), []  # reported with the skill's table already
    docker = docker.model_copy(update={"image": docker.image or source.removeprefix(_SOURCE)})
    expanded, faulty = expand_table(docker, environ)
    return docker, expanded, faulty


def _name_faults(name: str) -> Iterator[Fault]:
    if not TOOL_NAME.fullmatch(name):
        yield Fault((), "the name of a skill is 1 to 64 letters, digits, '_' or '-'")
