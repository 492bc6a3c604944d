"""The doctor's last checks: a sandbox of each profile is started, looked at and removed."""

from __future__ import annotations

import secrets

import anyio

from taskcell.assembly import stack
from taskcell.assembly.gateway import open_gateway
from taskcell.assembly.invocation import Invocation
from taskcell.assembly.stack import Loaded
from taskcell.assembly.trial import Problem, try_profile
from taskcell.cli.doctor_checks import ENGINE_TIMEOUT, Check, Verdict
from taskcell.config.settings import Settings
from taskcell.engine.base import Engine
from taskcell.errors import TaskcellError
from taskcell.gateway.gateway import Gateway
from taskcell.model import MIB, Profile

#: Sandboxes that start at once: the engine makes them one after the other for the most part.
_AT_ONCE = 3
#: Bytes of the files of a trial, which makes one empty file.
TRIAL_FILES = 16 * MIB


async def examine_trials(run: Invocation) -> list[Check]:
    """One check for each profile that can be tried: the policy allows it, and its image is on the engine."""
    try:
        loaded = stack.load(run)
        async with stack.opened_engine(run, loaded.settings) as engine:
            with anyio.fail_after(ENGINE_TIMEOUT):
                tried = await _that_can_be_tried(run, loaded, engine)
            settings = _apart(loaded.settings)
            async with open_gateway(settings, loaded.tools, engine, for_one_call=True) as gateway:
                found = await _try_all(gateway, tried, loaded.settings)
    except (TaskcellError, TimeoutError):
        return []  # what is wrong is said by the checks before
    broken = [
        Check("trial", Verdict.BROKEN, f"'{name}' cannot run. {problem.what}", problem.mend)
        for name, problem in found.items()
        if problem is not None
    ]
    good = sorted(name for name, problem in found.items() if problem is None)
    if not good:
        return broken
    return [*broken, Check("trial", Verdict.GOOD, f"A sandbox started for {', '.join(good)}.")]


def _apart(settings: Settings) -> Settings:
    """Settings under which a trial touches nothing of the deployment: no files on disk, no sandbox of a server."""
    files = {"persistent": False, "root": "", "size": TRIAL_FILES}
    workspace = settings.workspace.model_copy(update=files)
    return settings.model_copy(update={"workspace": workspace, "deployment": f"doctor-{secrets.token_hex(6)}"})


async def _that_can_be_tried(run: Invocation, loaded: Loaded, engine: Engine) -> dict[str, Profile]:
    policy = stack.policy_of(loaded.settings, stack.state_folder(run, loaded.settings))
    return {
        name: profile
        for name, profile in stack.profiles_of(loaded).items()
        if not policy.refusals(profile)
        and (engine.images is None or await engine.images.image_labels(profile.image) is not None)
    }


async def _try_all(gateway: Gateway, tried: dict[str, Profile], settings: Settings) -> dict[str, Problem | None]:
    found: dict[str, Problem | None] = {}
    turns = anyio.CapacityLimiter(min(_AT_ONCE, settings.pool.max_sandboxes, settings.pool.max_per_principal))

    async def one(name: str, profile: Profile) -> None:
        async with turns:
            found[name] = await try_profile(gateway, profile, settings)

    async with anyio.create_task_group() as all_of_them:
        for name, profile in tried.items():
            all_of_them.start_soon(one, name, profile)
    return found
