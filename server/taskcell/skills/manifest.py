"""Read skill manifests: TOML files that say which container serves which tool."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from taskcell.config.container_table import ContainerTable
from taskcell.config.expansion import expand_environment
from taskcell.config.fields import Table, Texts, faults
from taskcell.config.toml_source import Fault, Key, TomlSource, UnreadableToml
from taskcell.errors import ManifestError
from taskcell.mounts import Mount
from taskcell.secret import Secret
from taskcell.skills.forerunner import translate
from taskcell.skills.manifest_files import manifest_files
from taskcell.skills.skill_table import read_skill
from taskcell.skills.typed_tool import TypedTool
from taskcell.skills.variants import Variant, variants


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
        docker: its table as it is written; `image`, `environment`, `mounts`, `extra_args` and `secrets` have its
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
    secrets: tuple[Secret, ...] = ()

    @property
    def tool_names(self) -> tuple[str, ...]:
        """The names of the MCP tools that the skill provides."""
        return tuple(tool.name for tool in self.tools) or (self.name,)

    @property
    def place(self) -> str:
        return f"{self.file}:{self.line}" if self.line else str(self.file)


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A skill that cannot be used, because a variable that it needs is not set, or because no container can run it; the
    file itself is good.

    Arguments:
        tool_names: the MCP tools that it would provide.
        reasons: each as `FILE:LINE: key: sentence`.
    """

    name: str
    tool_names: tuple[str, ...]
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Manifests:
    """What all manifests declare.

    Arguments:
        faults: each as `FILE:LINE: key: sentence`, without the line where it is not known.
        notes: the same of keys that have no effect, and had one where the manifest comes from.
        partial: skills that cannot be used, as far as their tables can be read, so that the policy can judge them.
    """

    skills: tuple[Skill, ...]
    left_out: tuple[LeftOut, ...]
    faults: tuple[str, ...]
    notes: tuple[str, ...] = ()
    partial: tuple[Skill, ...] = ()


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
    notes: list[str] = []
    partial: list[Skill] = []
    for file in manifest_files(paths, wrong):
        try:
            source = TomlSource.read(file)
        except UnreadableToml as error:
            wrong.append(str(error))
            continue
        found = _read(source, environ, reserved)
        wrong += [source.describe(fault) for fault in found.faults]
        notes += [source.describe(fault) for fault in found.notes]
        left_out += found.left_out
        partial += found.partial
        for skill in found.skills:
            first = skills.setdefault(skill.name, skill)
            if first is not skill:
                fault = Fault(skill.key, f"is declared at {first.place} already; rename one of the two")
                wrong.append(source.describe(fault))
            else:
                wrong += [source.describe(fault) for fault in _collisions(skill, givers, reserved)]
    return Manifests(tuple(skills.values()), tuple(left_out), tuple(wrong), tuple(notes), tuple(partial))


def _collisions(skill: Skill, givers: dict[str, Skill], reserved: Collection[str]) -> Iterator[Fault]:
    """Report tools of a skill whose names are taken, by a skill in `givers` or by taskcell itself."""
    for full in skill.tool_names:
        key = (*skill.key, *(("tools", full.removeprefix(f"{skill.name}_")) if skill.tools else ()))
        first = givers.setdefault(full, skill)
        if full in reserved:
            yield Fault(key, f"its name would be '{full}', as that of one of taskcell's own tools is; choose another")
        elif first is not skill:
            yield Fault(key, f"its name would be '{full}', as a tool of '{first.name}' at {first.place}; rename one")


@dataclass
class _Found:
    """What one file declares; the fields of `Manifests`."""

    skills: list[Skill] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    notes: list[Fault] = field(default_factory=list)
    partial: list[Skill] = field(default_factory=list)


def _read(source: TomlSource, environ: Mapping[str, str], reserved: Collection[str]) -> _Found:
    """Return the skills of one file, those that cannot be used, and the faults of the others."""
    found = _Found()
    translated = translate(source.data)
    found.notes += translated.notes
    for name, reason in translated.left_out.items():
        found.left_out.append(LeftOut(name, (name,), (source.describe(reason),)))
    defaults = DefaultsTable()
    try:
        defaults = ManifestTable.model_validate(translated.data).defaults
    except ValidationError as error:
        found.faults += faults(error, ManifestTable)
    shared, wrong = expand_environment(defaults.environment, environ)
    of_all = [fault.below("defaults") for fault in wrong]
    found.faults += [fault for fault in of_all if not fault.leaves_out]
    tables = translated.data.get("skills", {})
    is_table = isinstance(tables, dict)
    for variant in [one for name, data in tables.items() for one in variants(name, data)] if is_table else []:
        if variant.faults:
            found.faults += variant.faults
        else:
            _add(found, variant, shared, of_all, source=source, environ=environ, reserved=reserved)
    # Once, though several variants share what is wrong.
    found.faults = list(dict.fromkeys(found.faults))
    return found


def _add(
    found: _Found,
    variant: Variant,
    shared: tuple[tuple[str, str], ...],
    of_all: Sequence[Fault],
    *,
    source: TomlSource,
    environ: Mapping[str, str],
    reserved: Collection[str],
) -> None:
    """Add a skill to those that can be used, or to those that cannot and to what is wrong."""
    read = read_skill(variant.name, variant.data, environ)
    placed = [variant.placed(fault) for fault in read.faults]
    if variant.name in reserved:
        taken = f"'{variant.name}' is the name of one of taskcell's own tools; choose another"
        placed.insert(0, variant.placed(Fault((), taken)))
    faulty = [fault for fault in placed if not fault.leaves_out]
    unusable = [fault for fault in (*of_all, *placed) if fault.leaves_out]
    found.faults += faulty
    skill = Skill(
        variant.name,
        read.description,
        read.docker,
        read.expanded.image,
        shared + read.expanded.environment,
        read.expanded.mounts,
        source.path,
        source.line(variant.key),
        read.tools,
        read.expanded.extra_args,
        variant.key,
        read.expanded.secrets,
    )
    if not faulty and not unusable:
        found.skills.append(skill)
        return
    if skill.image:
        found.partial.append(skill)
    if not faulty:
        found.left_out.append(LeftOut(skill.name, skill.tool_names, tuple(map(source.describe, unusable))))
