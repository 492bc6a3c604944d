"""Read skill manifests: TOML files that say which container serves which tool."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError

from taskcell.config.container_table import ContainerTable, Expanded, expand_environment, expand_table
from taskcell.config.fields import Prose, Table, Texts, Word, faults
from taskcell.config.toml_source import Fault, TomlSource, UnreadableToml
from taskcell.errors import ManifestError
from taskcell.model import Mount
from taskcell.skills.typed_tool import TOOL_NAME, TypedTool, check_description, read_tools

_SOURCE = "docker:"


def _docker_source(value: str) -> str:
    if value and (not value.startswith(_SOURCE) or value == _SOURCE):
        raise ValueError("must be 'docker:IMAGE'")
    return value


Source = Annotated[Word, AfterValidator(_docker_source)]
_SOURCED: TypeAdapter[str] = TypeAdapter(Source, config=ConfigDict(strict=True))


class SkillTable(Table):
    """A table `[skills.NAME]`."""

    description: Annotated[Prose, AfterValidator(check_description)]
    source: Source = ""
    runtime: Literal["docker"] = "docker"
    docker: ContainerTable = ContainerTable()
    tools: Any = Field(default={})


class DefaultsTable(Table):
    """The table `[defaults]`: what every skill of the file begins with."""

    environment: Texts = Field(default=(), repr=False)


class ManifestTable(Table):
    """A whole manifest. Each skill is checked apart from it, so that one bad table hides no fault of another."""

    version: Literal["1"]
    defaults: DefaultsTable = DefaultsTable()
    skills: dict[str, Any] = Field(default={})


@dataclass(frozen=True, slots=True)
class Skill:
    """A skill whose table has no faults.

    Arguments:
        docker: its table as it is written; `image`, `environment` and `mounts` have its variables filled in.
        environment: the file's defaults, then the skill's own. The values may be secret.
        tools: its typed tools; empty if the skill is one free-form tool of its own name.
        file, line: where it is declared.
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

    @property
    def tool_names(self) -> tuple[str, ...]:
        """The names of the MCP tools that the skill provides."""
        return tuple(tool.name for tool in self.tools) or (self.name,)

    @property
    def place(self) -> str:
        return f"{self.file}:{self.line}" if self.line else str(self.file)


def load(paths: Sequence[Path], environ: Mapping[str, str], reserved: Collection[str]) -> tuple[Skill, ...]:
    """Read and check all manifests.

    Arguments:
        paths: TOML files, or folders whose `*.toml` files are read, in order of name.
        environ: the server's environment, for `${VAR}`.
        reserved: names of taskcell's own tools, which a skill's tool would hide.

    Raises:
        ManifestError: it has every fault of every file, each as `FILE:LINE: key: sentence`, without the line where it
            is not known.
    """
    wrong: list[str] = []
    skills: dict[str, Skill] = {}
    givers: dict[str, Skill] = {}
    for file in _files(paths, wrong):
        try:
            source = TomlSource.read(file)
        except UnreadableToml as error:
            wrong.append(str(error))
            continue
        found, faulty = _read(source, environ, reserved)
        wrong += [source.describe(fault) for fault in faulty]
        for skill in found:
            first = skills.setdefault(skill.name, skill)
            if first is not skill:
                fault = Fault(("skills", skill.name), f"is declared at {first.place} already; rename one of the two")
                wrong.append(source.describe(fault))
            else:
                wrong += [source.describe(fault) for fault in _collisions(skill, givers, reserved)]
    if wrong:
        raise ManifestError(wrong)
    return tuple(skills.values())


def _collisions(skill: Skill, givers: dict[str, Skill], reserved: Collection[str]) -> Iterator[Fault]:
    """Report tools of a skill whose names are taken, by a skill in `givers` or by taskcell itself."""
    for full in skill.tool_names:
        key = ("skills", skill.name, *(("tools", full.removeprefix(f"{skill.name}_")) if skill.tools else ()))
        first = givers.setdefault(full, skill)
        if full in reserved:
            yield Fault(key, f"its name would be '{full}', as that of one of taskcell's own tools is; choose another")
        elif first is not skill:
            yield Fault(key, f"its name would be '{full}', as a tool of '{first.name}' at {first.place}; rename one")


#: A change of a manifest changes this: each file's name, device, inode, size and times.
Stamp = tuple[tuple[object, ...], ...]


def stamp(paths: Sequence[Path]) -> Stamp:
    """Return a stamp of the manifests on the disk. Equal stamps mean the same files with the same content."""
    wrong: list[str] = []
    files = [_file_stamp(file) for file in _files(paths, wrong)]
    return (*files, tuple(wrong))


def _file_stamp(file: Path) -> tuple[object, ...]:
    try:
        found = file.stat()
    except OSError as error:
        return (str(file), error.errno)
    return (str(file), found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _files(paths: Sequence[Path], wrong: list[str]) -> Iterator[Path]:
    """Yield every manifest once, in order."""
    seen = set()
    for path in paths:
        try:
            if path.is_dir():
                files = sorted(file for file in path.glob("*.toml") if file.is_file())
            elif path.is_file():
                files = [path]
            else:
                wrong.append(f"{path}: there is no such file or folder; correct 'manifests' in the configuration")
                continue
        except OSError as error:
            wrong.append(f"{path}: cannot be read: {error.strerror or error}")
            continue
        for file in files:
            if (resolved := file.resolve()) not in seen:
                seen.add(resolved)
                yield file


def _read(source: TomlSource, environ: Mapping[str, str], reserved: Collection[str]) -> tuple[list[Skill], list[Fault]]:
    """Return the skills of one file that have no faults, and the faults of the others."""
    wrong: list[Fault] = []
    defaults = DefaultsTable()
    try:
        defaults = ManifestTable.model_validate(source.data).defaults
    except ValidationError as error:
        wrong += faults(error, ManifestTable)
    shared, faulty = expand_environment(defaults.environment, environ)
    wrong += [Fault(("defaults", *fault.key), fault.sentence) for fault in faulty]
    tables = source.data.get("skills", {})
    skills = []
    for name, data in tables.items() if isinstance(tables, dict) else ():
        skill, faulty = _skill(name, data, shared, environ, source)
        if name in reserved:
            faulty.insert(0, Fault((), f"'{name}' is the name of one of taskcell's own tools; choose another"))
            skill = None
        wrong += [Fault(("skills", name, *fault.key), fault.sentence) for fault in faulty]
        if skill is not None:
            skills.append(skill)
    return skills, wrong


def _skill(
    name: str, data: object, shared: tuple[tuple[str, str], ...], environ: Mapping[str, str], source: TomlSource
) -> tuple[Skill | None, list[Fault]]:
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
    wrong += [Fault(("docker", *fault.key), fault.sentence) for fault in faulty]
    tools, faulty = read_tools(name, data.get("tools", {}))
    wrong += faulty
    if wrong or table is None:
        return None, wrong
    line = source.line(("skills", name))
    environment = shared + expanded.environment
    text = table.description.strip()
    return Skill(name, text, docker, expanded.image, environment, expanded.mounts, source.path, line, tools), []


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
