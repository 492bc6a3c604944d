"""The doctor's checks, in the order in which one depends on the other."""

from __future__ import annotations

import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from enum import Enum

import anyio

from taskcell.assembly import stack
from taskcell.assembly.invocation import Invocation
from taskcell.assembly.stack import Loaded
from taskcell.config.image_reference import NAME_PREFIX
from taskcell.config.settings import EngineSettings, Settings
from taskcell.engine.base import Engine
from taskcell.errors import Denied, ManifestError, TaskcellError
from taskcell.images.engine import ImageEngine
from taskcell.profile.build import terminal_profile
from taskcell.supervisor import binary
from taskcell.units import format_size

#: Seconds for the supervisor to print its version; it does nothing else.
VERSION_TIMEOUT = 5.0
#: Seconds for a registry to say whether it has an image.
REGISTRY_TIMEOUT = 15.0
#: Seconds for the engine's answers to all questions; one that takes longer is too slow to serve.
ENGINE_TIMEOUT = 60.0


class Verdict(Enum):
    """`WEAK`: it works, but something that the user may rely on does not hold. `OPTIONAL`: nothing is wrong, and more
    could be had."""

    GOOD = "ok"
    OPTIONAL = "optional"
    WEAK = "weak"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True)
class Check:
    """One check: what was found, and how to mend it when the finding does not say that itself."""

    name: str
    verdict: Verdict
    detail: str
    mend: str = ""


async def examine(run: Invocation) -> list[Check]:
    """All checks, but for those that depend on something broken."""
    try:
        settings = stack.load_settings(run)
    except TaskcellError as error:
        mend = "correct the configuration; nothing else can be checked before that."
        return [Check("configuration", Verdict.BROKEN, _line(str(error)), mend), await _supervisor()]
    place = str(settings.file) if settings.file else "no file; the defaults hold"
    checks = [Check("configuration", Verdict.GOOD, f"{place}.")]
    loaded, found = _manifests(run, settings)
    checks += found
    if loaded is not None:
        checks += _policy(run, loaded)
        checks += _sudo(loaded)
    checks += [_limits(settings), await _supervisor()]
    checks += [check async for check in _engine(run, settings, loaded)]
    return checks


def _manifests(run: Invocation, settings: Settings) -> tuple[Loaded | None, list[Check]]:
    try:
        loaded = stack.load(run)
    except ManifestError as error:
        mend = "correct it; `serve` refuses to start on a faulty manifest."
        return None, [Check("manifests", Verdict.BROKEN, _line(fault), mend) for fault in error.faults]
    except TaskcellError as error:
        return None, [Check("manifests", Verdict.BROKEN, _line(str(error)), "correct the configuration.")]
    left_out = [
        Check("manifests", Verdict.BROKEN, f"The skill '{skill.name}' is left out. {_line(reason)}.")
        for skill in loaded.left_out
        for reason in skill.reasons
    ]
    places = ", ".join(map(str, settings.manifest_paths)) or "no folder"
    detail = f"{len(loaded.skills)} skills from {places}."
    if not loaded.skills:
        mend = "name your manifests in `manifests`, or leave that key out to have those that come with taskcell."
        return loaded, [*left_out, Check("manifests", Verdict.WEAK, detail, mend)]
    return loaded, [*left_out, Check("manifests", Verdict.GOOD, detail)]


def _policy(run: Invocation, loaded: Loaded) -> Iterator[Check]:
    """Each profile, authorised as it would be before its container is made."""
    policy = stack.policy_of(loaded.settings, stack.state_folder(run, loaded.settings))
    refused = 0
    judged = stack.profiles_of(loaded)
    for name, profile in judged.items():
        try:
            policy.authorize_profile(profile)
        except Denied as denial:
            refused += 1
            mend = f"change the profile '{name}', or [policy]; docs/security.md says what each rule refuses."
            yield Check("policy", Verdict.BROKEN, f"'{name}' cannot run. {_line(str(denial))}", mend)
    if not refused:
        yield Check("policy", Verdict.GOOD, f"allows all {len(judged)} profiles.")


def _sudo(loaded: Loaded) -> Iterator[Check]:
    """Where the password comes from, for profiles that have sudo; a faulty source is a fault of the configuration."""
    having = sorted(name for name, profile in stack.profiles_of(loaded).items() if profile.sudo)
    if having:
        secret = loaded.settings.sudo
        own = f"is what {secret.password_file} holds" if secret.password_file else "comes from the environment"
        source = "is random for each sandbox" if loaded.settings.sudo_password is None else own
        yield Check("sudo", Verdict.GOOD, f"For {', '.join(having)}; the password {source}.")


def _limits(settings: Settings) -> Check:
    memory = settings.terminal.memory
    if not memory:
        return Check("limits", Verdict.WEAK, "The terminal's memory is not bounded.", "set terminal.memory.")
    wanted = memory * settings.pool.max_sandboxes
    has = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    most = settings.pool.max_sandboxes
    said = f"Each sandbox may use {format_size(memory)}, and {most} of them {format_size(wanted)}"
    if memory <= has:
        # Bounds, and not what is used: an idle sandbox has a few megabytes.
        return Check("limits", Verdict.GOOD, f"{said}; this machine has {format_size(has)}.")
    mend = "lower terminal.memory, unless the engine is on another machine."
    return Check("limits", Verdict.WEAK, f"{said}; this machine has only {format_size(has)}.", mend)


async def _supervisor() -> Check:
    mend = "install taskcell again: `pip install --force-reinstall taskcell`."
    try:
        program = binary.path()
        with anyio.fail_after(VERSION_TIMEOUT):
            done = await anyio.run_process([program, "version"], check=False, stderr=subprocess.STDOUT)
    except TaskcellError as error:
        return Check("supervisor", Verdict.BROKEN, str(error))
    except TimeoutError:
        return Check("supervisor", Verdict.BROKEN, f"{program} does not answer.", mend)
    except OSError as error:
        return Check("supervisor", Verdict.BROKEN, f"{program} cannot run: {error.strerror}.", mend)
    if done.returncode != 0:
        return Check("supervisor", Verdict.BROKEN, f"{program} ended with code {done.returncode}.", mend)
    said = _line(done.stdout.decode("utf-8", "replace")) or "no version"
    return Check("supervisor", Verdict.GOOD, f"{said} ({program}).")


async def _engine(run: Invocation, settings: Settings, loaded: Loaded | None) -> AsyncIterator[Check]:
    """The engine: what it cannot do, where persistent files are, and whether it has the images."""
    found: list[Check] = []
    try:
        with anyio.fail_after(ENGINE_TIMEOUT):
            async with stack.opened_engine(run, settings) as engine:
                found += await _engine_itself(engine)
                found += await _workspaces(engine, run, settings)
                found += await _images(engine, settings, loaded)
    except TaskcellError as error:
        found.append(Check("engine", Verdict.BROKEN, _line(str(error))))
    except TimeoutError:
        detail = f"It did not answer within {ENGINE_TIMEOUT:.0f} seconds."
        found.append(Check("engine", Verdict.BROKEN, detail, "look at the engine's own log, or restart it."))
    for check in found:
        yield check


async def _engine_itself(engine: Engine) -> list[Check]:
    facts = await engine.facts()
    if not facts.isolated:
        mend = f"set engine.kind to '{EngineSettings().kind}'."
        return [Check("engine", Verdict.WEAK, f"{facts.name}: no isolation.", mend)]
    checks = [Check("engine", Verdict.GOOD, f"{facts.name} {facts.version}.")]
    checks += [Check("engine", Verdict.BROKEN, fault) for fault in facts.faults]
    return checks + [Check("engine", Verdict.WEAK, weakness) for weakness in facts.weaknesses]


async def _workspaces(engine: Engine, run: Invocation, settings: Settings) -> list[Check]:
    """Whether persistent files may be where the settings say, and whether their size is bounded there."""
    if settings.workspace_folder is not None:
        return [_folder(run, settings)]
    if not settings.workspace.persistent:
        return []
    root = settings.workspace_root
    if root is not None:
        try:
            stack.policy_of(settings, stack.state_folder(run, settings)).authorize_root(root)
        except Denied as denial:
            return [Check("workspace", Verdict.BROKEN, _line(str(denial)), "name another folder as workspace.root.")]
    place = "engine volumes" if root is None else str(root)
    size = format_size(settings.workspace.size)
    if root is None and await engine.bounds_volumes(settings.workspace.size):
        return [Check("workspace", Verdict.GOOD, f"persistent, in {place}, each bounded to {size}.")]
    mend = "watch the disk, or put the engine's data on a file system with project quotas (XFS with pquota)."
    return [Check("workspace", Verdict.WEAK, f"persistent, in {place}; nothing holds a task to {size}.", mend)]


def _folder(run: Invocation, settings: Settings) -> Check:
    profile = terminal_profile(settings)
    try:
        stack.policy_of(settings, stack.state_folder(run, settings)).authorize_folder(profile)
    except Denied as denial:
        return Check("workspace", Verdict.BROKEN, _line(str(denial)), "correct workspace.folder, or --folder.")
    if settings.policy.mounts_in_vm:
        detail = f"{settings.workspace_folder}; what the engine mounts is not compared with it."
        return Check("workspace", Verdict.WEAK, detail, "set policy.mounts_in_vm = false unless its engine needs that.")
    return Check("workspace", Verdict.GOOD, f"{settings.workspace_folder}; commands run as user {profile.user}.")


async def _images(engine: Engine, settings: Settings, loaded: Loaded | None) -> list[Check]:
    if engine.images is None:
        return []
    users: dict[str, set[str]] = {}
    for profile in stack.profiles_of(loaded).values() if loaded else ():
        users.setdefault(profile.image, set()).add(profile.name)
    users = users or {settings.terminal.image: {"terminal"}}
    return [await _image(engine.images, reference, sorted(users[reference])) for reference in sorted(users)]


async def _image(engine: ImageEngine, reference: str, users: list[str]) -> Check:
    """Whether the engine has an image. `users`: names of the profiles that use it."""
    from taskcell.images import skills as skill_images

    what = f"{reference} ({', '.join(users)})"
    command = skill_images.build_command(reference)
    labels = await engine.image_labels(reference)
    if labels is None and command is not None:
        # Without the terminal's image nothing works; without a skill's image, only that skill does not.
        verdict = Verdict.BROKEN if "terminal" in users else Verdict.OPTIONAL
        return Check("image", verdict, f"{what} is missing.", f"run `{command}`.")
    if labels is None and reference.startswith(NAME_PREFIX):
        mend = "correct the image's name; `taskcell image build --list` shows those that taskcell builds."
        return Check("image", Verdict.BROKEN, f"{what} is missing, and no command builds it.", mend)
    if labels is None:
        return await _in_registry(engine, reference, what)
    if command is not None and not skill_images.is_current(reference, labels):
        detail = f"{what} was not built from this version's definition."
        return Check("image", Verdict.WEAK, detail, f"run `{command}`.")
    return Check("image", Verdict.GOOD, f"{what} is there.")


async def _in_registry(engine: ImageEngine, reference: str, what: str) -> Check:
    """Whether an image that the engine does not have can be pulled; nothing is pulled for it."""
    try:
        with anyio.fail_after(REGISTRY_TIMEOUT):
            why = await engine.why_not_pulled(reference)
    except TimeoutError:
        why = f"its registry did not answer within {REGISTRY_TIMEOUT:.0f} seconds"
    if why:
        mend = "correct the image's name, sign in with `docker login`, or load it with `docker load`."
        return Check("image", Verdict.BROKEN, f"{what} is not there, and cannot be pulled: {why}.", mend)
    mend = f"`docker pull {reference}` saves the first call that time."
    return Check("image", Verdict.OPTIONAL, f"{what} is not there yet and will be pulled at its first use.", mend)


def _line(text: str) -> str:
    return " ".join(text.split())
