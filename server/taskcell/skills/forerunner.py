"""Read manifests of the skill engine (`.skill-engine.toml`), whose container skills have the same keys.

What has a counterpart is translated, what has none is said. A key is taken for the forerunner's only where it is
written as the forerunner has it; everything else is left to the checks of our own keys.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from taskcell.config.toml_source import Fault, Key

_HOST = "run it in the terminal, or name an image with its program: docker.image and docker.entrypoint"
#: What the forerunner runs without a container, and why that is not done here.
_RUNTIMES = {
    "native": f"'native' runs programs of the host, and nothing here does; {_HOST}",
    "wasm": f"'wasm' runs WebAssembly components, and nothing here does; {_HOST}",
}
#: Keys of a skill, and why they change nothing.
_OF_A_SKILL = {
    "services": "is not needed here: a sandbox reaches no service of the host; write docker.network for a network",
    "ref": "is not needed here: the image's tag or digest says the version",
    "default_instance": "is not needed here: each variant is a tool of its own",
}
_CONFIG = "has no effect: write it into docker.command or docker.environment, as the image's program reads it"
_NETWORK = "has no effect: write docker.network, which policy.allow_networks must name"
_CAPABILITIES = {
    "network_access": _NETWORK,
    "allowed_paths": "has no effect: write docker.volumes, which policy.allowed_mount_roots must allow",
    "max_concurrent_requests": "has no effect: limits.max_processes bounds the commands of each sandbox",
}


@dataclass
class Translated:
    """A manifest in our own keys.

    Arguments:
        notes: what the forerunner reads in it and has no effect here.
        left_out: skills that cannot run in a container, by name, each with the reason.
    """

    data: dict[str, Any]
    notes: list[Fault] = field(default_factory=list)
    left_out: dict[str, Fault] = field(default_factory=dict)


def translate(data: Mapping[str, Any]) -> Translated:
    """Return a parsed manifest in our own keys. The argument stays as it is."""
    found = Translated(dict(data))
    if isinstance(data.get("defaults"), dict):
        found.data["defaults"] = _with_environment(data["defaults"], "", ("defaults",), found)
    if isinstance(data.get("skills"), dict):
        found.data["skills"] = dict(_skills(data["skills"], found))
    return found


def _skills(skills: Mapping[str, Any], found: Translated) -> Iterator[tuple[str, Any]]:
    for name, table in skills.items():
        key: Key = ("skills", name)
        reason = _no_container(table) if isinstance(table, dict) else None
        if reason is not None:
            found.left_out[name] = reason.below(*key)
            continue
        yield name, _skill(table, key, found) if isinstance(table, dict) else table


def _no_container(table: Mapping[str, Any]) -> Fault | None:
    runtime, source = table.get("runtime"), table.get("source", "")
    if runtime in _RUNTIMES and isinstance(runtime, str):
        return Fault(("runtime",), _RUNTIMES[runtime])
    # The forerunner's own runtime, where none is written.
    is_path = isinstance(source, str) and source.startswith(("./", "../", "/", "github:", "https://"))
    return Fault(("source",), _RUNTIMES["wasm"]) if runtime is None and is_path and "docker" not in table else None


def _skill(table: Mapping[str, Any], key: Key, found: Translated) -> dict[str, Any]:
    own = {word: value for word, value in table.items() if word not in _OF_A_SKILL}
    found.notes += [Fault((*key, word), _OF_A_SKILL[word]) for word in table if word in _OF_A_SKILL]
    instances = own.get("instances")
    if isinstance(instances, dict):
        place = (*key, "instances")
        own["instances"] = {
            name: _with_environment(one, "docker", (*place, name), found) if isinstance(one, dict) else one
            for name, one in instances.items()
        }
    return own


def _with_environment(table: Mapping[str, Any], at: str, key: Key, found: Translated) -> dict[str, Any]:
    """Take `env`, `config` and `capabilities` out of a table.

    Arguments:
        at: the table in it that the first belongs to, as `environment`; empty: itself.
    """
    own = dict(table)
    place = own.get(at, {}) if at else own
    is_mapping = isinstance(own.get("env"), dict) and all(isinstance(value, str) for value in own["env"].values())
    if is_mapping and isinstance(place, dict) and isinstance(place.get("environment", []), list):
        entries = [f"{name}={value}" for name, value in own.pop("env").items()]
        together = {"environment": [*place.get("environment", []), *entries]}
        own |= {at: {**place, **together}} if at else together
    if at and isinstance(own.get("config"), dict):
        found.notes += [Fault((*key, "config", word), _CONFIG) for word in own.pop("config")]
    capabilities = own.get("capabilities")
    if isinstance(capabilities, dict) and capabilities.keys() <= _CAPABILITIES.keys():
        del own["capabilities"]
        found.notes += [
            Fault((*key, "capabilities", word), _CAPABILITIES[word])
            for word, value in capabilities.items()
            if value not in (False, [])  # as here
        ]
    return own
