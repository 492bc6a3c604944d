"""Finds every reason why a skill could not run, each with its place in the manifest, without asking the engine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from taskcell.assembly import stack
from taskcell.assembly.invocation import Invocation
from taskcell.config.settings import Settings
from taskcell.config.toml_source import Fault, TomlSource, UnreadableToml
from taskcell.environment import Environment
from taskcell.policy.policy import Policy
from taskcell.profile.build import skill_profile, terminal_profile
from taskcell.refusal import Refusal, Rule
from taskcell.skills import manifest
from taskcell.skills.manifest import Skill
from taskcell.tools.catalog import reserved_names

#: The keys of the docker table that a rule is about. Whatever a table does not have comes from extra_args.
_KEYS: dict[Rule, tuple[str, ...]] = {
    Rule.IMAGES: ("image",),
    Rule.FORM: ("working_dir", "platform", "entrypoint", "command"),
    Rule.ENVIRONMENT: ("environment",),
    Rule.OWN: ("own",),
    Rule.DISK: ("disk",),
    Rule.USER: ("user",),
    Rule.SUDO: ("sudo",),
    Rule.CAPABILITIES: ("cap_add",),
    Rule.NETWORKS: ("network",),
    Rule.EGRESS: ("egress",),
    Rule.NAMESPACES: ("network",),
    Rule.GPUS: ("gpus",),
    Rule.RESOURCES: ("memory", "cpus", "pids"),
    **dict.fromkeys((Rule.MOUNTS, Rule.SOCKETS, Rule.BLOCKED, Rule.ROOTS), ("volumes",)),
}


def find_faults(run: Invocation, settings: Settings) -> list[str]:
    """Return every fault of the manifests, every variable that is not set and every refusal of the policy.

    Each is `FILE:LINE: key: sentence`, without the line where it is not known.
    """
    found = manifest.read(settings.manifest_paths, run.environ, reserved_names())
    unusable = [reason for skill in found.left_out for reason in skill.reasons]
    policy = stack.policy_of(settings, stack.state_folder(run, settings))
    refused = [line for skill in (*found.skills, *found.partial) for line in _refused(skill, settings, policy)]
    return [*_terminal_refused(settings, policy), *found.faults, *unusable, *refused]


def find_notes(run: Invocation, settings: Settings) -> tuple[str, ...]:
    """Return the keys of the manifests that have no effect here, as `FILE:LINE: key: sentence`."""
    return manifest.read(settings.manifest_paths, run.environ, reserved_names()).notes


def _terminal_refused(settings: Settings, policy: Policy) -> Iterator[str]:
    """Describe everything that speaks against the profiles of terminals, with its key in the configuration."""
    source = _read(settings.file) if settings.file is not None else None
    for name, place, table in settings.terminals():
        for refusal in policy.refusals(terminal_profile(settings.in_environment(Environment(name)))):
            written = dict.fromkeys(table.model_fields_set, True)
            key = (*place, *_key(refusal, {"docker": written})[1:])
            fault = Fault(key, _sentence(refusal))
            yield source.describe(fault) if source is not None else f"{'.'.join(key)}: {fault.sentence}"


def _read(file: Path) -> TomlSource | None:
    try:
        return TomlSource.read(file)
    except UnreadableToml:  # it has just been read, and is gone again
        return None


def _sentence(refusal: Refusal) -> str:
    return f"{refusal.reason.rstrip('.')} (the policy's rule '{refusal.rule.value}')"


def _refused(skill: Skill, settings: Settings, policy: Policy) -> Iterator[str]:
    source = _read(skill.file)
    if source is None:
        return
    table = source.data["skills"][skill.key[1]]
    own = table["instances"][skill.key[3]] if len(skill.key) > 2 else table
    if not isinstance(table.get("docker", {}), dict) or not isinstance(own.get("docker", {}), dict):
        return
    for refusal in policy.refusals(skill_profile(skill, settings)):
        within = _key(refusal, own)
        # What a variant does not say itself is its skill's.
        shared = ("skills", skill.key[1], *_key(refusal, table))
        key = (*skill.key, *within) if within != ("docker",) and within[0] in own else shared
        yield source.describe(Fault(key, _sentence(refusal)))


def _key(refusal: Refusal, table: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the key, below the skill's table, that a refusal is most likely about."""
    docker = table.get("docker", {})
    if refusal.rule is Rule.IMAGES and "image" not in docker:
        return ("source",)
    keys = _KEYS.get(refusal.rule, ())
    for key in keys:
        if key in docker and (len(keys) == 1 or key.split("_")[0] in refusal.reason.lower()):
            return ("docker", key)
    return ("docker", "extra_args") if "extra_args" in docker else ("docker",)
