"""Judge a configuration that came from elsewhere, find what the policy must allow of it, and write it down."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import tomlkit

from taskcell.assembly import stack
from taskcell.assembly.invocation import Invocation
from taskcell.config.policy_tables import PolicySettings
from taskcell.errors import TaskcellError
from taskcell.migration.moved import Moved
from taskcell.policy.policy import Policy
from taskcell.profile.build import skill_profile, terminal_profile
from taskcell.refusal import Refusal
from taskcell.skills import manifest
from taskcell.tools.catalog import reserved_names

_CONFIG = "taskcell.toml"
_MANIFESTS = "manifests"
_HEADER = "What the policy must allow. Take '# ' away from the lines that you agree with, and from [policy]."


@dataclass(frozen=True, slots=True)
class Need:
    """A key of `[policy]`, what it must be, and the sentences of what is refused without."""

    key: str
    value: Any
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Judged:
    """What a configuration needs.

    Arguments:
        wrong: what nothing in the policy can allow, as sentences.
    """

    needs: tuple[Need, ...]
    wrong: tuple[str, ...]


def judge_moved(moved: Moved, run: Invocation) -> Judged:
    """Judge a configuration as its server would."""
    with tempfile.TemporaryDirectory(prefix="taskcell-import-") as name:
        folder = Path(name)
        for path, text in files(moved, (), allow=False).items():
            (folder / path).parent.mkdir(exist_ok=True)
            (folder / path).write_text(text, encoding="utf-8")
        here = replace(run, config=folder / _CONFIG, cwd=folder, environ=_without_overrides(run.environ))
        try:
            settings = stack.load_settings(here)
        except TaskcellError as error:
            return Judged((), tuple(line.replace(f"{folder}/", "") for line in str(error).splitlines()))
        found = manifest.read(settings.manifest_paths, here.environ, reserved_names())
        policy = stack.policy_of(settings, None)
        skills = (*found.skills, *found.partial) if moved.skills else ()
        profiles = [terminal_profile(settings), *(skill_profile(skill, settings) for skill in skills)]
        refusals = [refusal for profile in profiles for refusal in policy.refusals(profile)]
        needs = _needs(refusals)
        allowed = Policy(PolicySettings.model_validate({need.key: need.value for need in needs}))
        still = [refusal.reason for profile in profiles for refusal in allowed.refusals(profile)]
        left_out = [reason for skill in found.left_out for reason in skill.reasons] if moved.skills else []
        wrong = [line.replace(f"{folder}/", "") for line in (*found.faults, *left_out)]
    return Judged(needs, tuple(dict.fromkeys([*wrong, *still])))


def _without_overrides(environ: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environ.items() if not name.startswith("TASKCELL__")}


def _needs(refusals: list[Refusal]) -> tuple[Need, ...]:
    """What the policy must say, so that whatever it can allow of the refusals is allowed."""
    default = PolicySettings()
    values: dict[str, Any] = {}
    reasons: dict[str, list[str]] = {}
    for refusal in refusals:
        for key, value in refusal.allowed_by:
            before = values.get(key, getattr(default, key))
            if isinstance(before, tuple | list):
                values[key] = [*before, *([] if value in before else [value])]
            elif isinstance(value, bool) or key not in values or _number(value) > _number(before):
                values[key] = value
            reasons.setdefault(key, []).append(refusal.reason.partition("; ")[0])
    return tuple(Need(key, values[key], tuple(dict.fromkeys(reasons[key]))) for key in values)


def _number(value: object) -> float:
    """A limit as a number: sizes are written in MiB, as in `5120m`."""
    return float(str(value).removesuffix("m"))


def files(moved: Moved, needs: tuple[Need, ...], *, allow: bool) -> dict[str, str]:
    """Return the files of the configuration, by their paths in its folder.

    Arguments:
        allow: the policy allows what is needed; else that is commented out.
    """
    document = tomlkit.document()
    for table, values in moved.settings.items():
        if values:
            document[table] = values
    written = {_CONFIG: tomlkit.dumps(document) + _policy(needs, allow=allow)}
    if moved.skills:
        written[f"{_MANIFESTS}/{moved.manifest}"] = tomlkit.dumps({"version": "1", "skills": moved.skills})
    return written


def _policy(needs: tuple[Need, ...], *, allow: bool) -> str:
    if not needs:
        return ""
    mark = "" if allow else "# "
    lines = ["", f"# {_HEADER}" if not allow else "# What was refused without is above each key.", f"{mark}[policy]"]
    for need in needs:
        lines += [f"#   {reason}" for reason in need.reasons]
        lines.append(mark + tomlkit.dumps({need.key: need.value}).strip())
    return "\n".join(lines) + "\n"
