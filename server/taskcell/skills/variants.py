"""Variants of a skill, `[skills.NAME.instances.VARIANT]`: each is a skill of its own that shares the skill's table.

A skill with variants is not a skill by itself: every tool of it costs a model tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import Field, ValidationError

from taskcell.config.fields import Table, faults
from taskcell.config.toml_source import Fault, Key

_OWN_NAME = "default"


class VariantTable(Table):
    """A table `[skills.NAME.instances.VARIANT]`. What it holds is checked as a part of the skill's own table."""

    description: Any = None
    source: Any = None
    docker: dict[str, Any] = Field(default={})


@dataclass(frozen=True, slots=True)
class Variant:
    """A skill as it is to be read.

    Arguments:
        name: of the skill: `NAME`, or `NAME_VARIANT`, but `NAME` for the variant `default`.
        key: its own table in the file.
        data: its whole table, checked in nothing.
        own: what its own table says; empty for a skill without variants.
        faults: what is wrong with its own table; their keys begin at the file.
    """

    name: str
    key: Key
    data: object
    own: Mapping[str, Any] = field(default_factory=dict, repr=False)
    faults: tuple[Fault, ...] = ()

    def placed(self, fault: Fault) -> Fault:
        """Return a fault of the whole table with its key in the file: below the variant where that says it itself."""
        if not self.own:
            return fault.below(*self.key)
        first, *rest = fault.key or ("",)
        inner = self.own.get(str(first))
        if rest and isinstance(inner, Mapping):
            if rest[0] == "environment" and len(rest) > 1:
                return self._placed_in_environment(fault, rest[1], inner.get("environment", ()))
            return fault.below(*(self.key if rest[0] in inner else self.key[:2]))
        return fault.below(*(self.key if not fault.key or first in self.own else self.key[:2]))

    def _placed_in_environment(self, fault: Fault, index: str | int, own: Any) -> Fault:
        """The variant's entries come after the skill's."""
        whole = self.data["docker"]["environment"] if isinstance(self.data, dict) else ()
        before = len(whole) - len(own)
        if isinstance(index, int) and index >= before:
            return replace(fault, key=("docker", "environment", index - before)).below(*self.key)
        return fault.below(*self.key[:2])


def variants(name: str, data: object) -> Iterator[Variant]:
    """Yield the skills that a table `[skills.NAME]` declares: its variants, or itself if it has none."""
    key = ("skills", name)
    instances = data.get("instances", {}) if isinstance(data, dict) else {}
    if not isinstance(instances, dict):
        fault = Fault((*key, "instances"), "must be a table: [skills.NAME.instances.VARIANT]")
        yield Variant(name, key, None, faults=(fault,))
        return
    if not isinstance(data, dict):
        yield Variant(name, key, data)
        return
    shared = {word: value for word, value in data.items() if word != "instances"}
    base = shared.get("docker", {})
    # What nothing can be laid over is faulty, and reported as the skill's own.
    if not instances or not isinstance(base, dict) or not isinstance(base.get("environment", []), list):
        yield Variant(name, key, shared)
        return
    for variant, own in instances.items():
        place = (*key, "instances", variant)
        try:
            VariantTable.model_validate(own)
        except ValidationError as error:
            wrong = tuple(fault.below(*place) for fault in faults(error, VariantTable))
            yield Variant(_named(name, variant), place, None, faults=wrong)
        else:
            yield Variant(_named(name, variant), place, _merged(shared, own), own)


def _named(name: str, variant: str) -> str:
    """The variant `default` has its skill's own name."""
    return name if variant == _OWN_NAME else f"{name}_{variant}"


def _merged(shared: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Lay a variant's table over the skill's. Lists replace those of the skill, but variables are added to its own."""
    base, mine = shared.get("docker", {}), own.get("docker", {})
    docker = {**base, **mine}
    if isinstance(mine.get("environment", []), list) and "environment" in docker:
        docker["environment"] = [*base.get("environment", []), *mine.get("environment", [])]
    merged = {**shared, **own, "docker": docker}
    # Another image is one image, and no contradiction to the skill's, however each of them is named.
    if "source" in own and "image" not in own.get("docker", {}):
        docker.pop("image", None)
    elif "image" in own.get("docker", {}) and "source" not in own:
        merged.pop("source", None)
    return merged
