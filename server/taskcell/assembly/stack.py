"""From the command line's options to a working gateway."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio
import structlog

from taskcell.assembly.invocation import Invocation
from taskcell.config import load as config
from taskcell.config.settings import Settings
from taskcell.engine.base import Engine
from taskcell.gateway.gateway import Gateway, open_gateway
from taskcell.skills import manifest
from taskcell.skills.manifest import Skill
from taskcell.tools import tool
from taskcell.tools.tool import CommandTool

log = structlog.get_logger(__name__)

#: Seconds to close connections, or to delete the local engine's folder; neither waits for anyone else.
ENGINE_CLOSE_TIMEOUT = 1.0


@dataclass(frozen=True, slots=True)
class Loaded:
    """Everything that was declared, checked. `stamp` is how the manifests stood on the disk before they were read."""

    settings: Settings
    skills: tuple[Skill, ...]
    tools: Mapping[str, CommandTool]
    stamp: manifest.Stamp


def load(run: Invocation) -> Loaded:
    """Read configuration and manifests. Raises ConfigError, ManifestError."""
    return load_manifests(run, load_settings(run))


def load_manifests(run: Invocation, settings: Settings) -> Loaded:
    """Read the manifests. Raises ManifestError, ConfigError."""
    stamp = manifest.stamp(settings.manifest_paths)
    skills = manifest.load(settings.manifest_paths, run.environ)
    return Loaded(settings, skills, tool.build_tools(settings, skills), stamp)


def load_settings(run: Invocation) -> Settings:
    """Read the configuration. Raises ConfigError."""
    return config.load(run.config, run.environ, run.cwd)


def is_isolated(settings: Settings) -> bool:
    """False for the engine that runs commands as ordinary processes."""
    return settings.engine.kind != "local"


def warn_unless_isolated(settings: Settings) -> None:
    """A line in the log where commands are ordinary processes."""
    if not is_isolated(settings):
        log.warning("The engine 'local' has no isolation: commands are ordinary processes of this machine.")


@asynccontextmanager
async def opened_engine(run: Invocation, settings: Settings) -> AsyncIterator[Engine]:
    """The configured engine, let go of on leaving."""
    engine: Engine
    if is_isolated(settings):
        from taskcell.engine.docker import DockerEngine

        engine = DockerEngine(settings.engine.host, run.environ, settings.engine.runtime)
    else:
        from taskcell.engine.local import LocalEngine

        engine = LocalEngine()
    try:
        yield engine
    finally:
        with anyio.move_on_after(ENGINE_CLOSE_TIMEOUT, shield=True):
            await engine.aclose()


def state_folder(run: Invocation, settings: Settings) -> Path | None:
    """Where the deployment's servers write what they know; None where the environment names no place for it."""
    base = Path(run.environ.get("XDG_STATE_HOME", ""))
    if not base.is_absolute():
        home = Path(run.environ.get("HOME", ""))
        if not home.is_absolute():
            return None
        base = home / ".local" / "state"
    return base / "taskcell" / "deployments" / settings.deployment_id


@asynccontextmanager
async def gateway(run: Invocation, loaded: Loaded, *, for_one_call: bool = False) -> AsyncIterator[Gateway]:
    """A gateway over the configured engine; leaving closes every sandbox.

    Arguments:
        for_one_call: make nothing beforehand, and leave alone what other servers left.
    """
    # A sandbox without isolation is a child of its server, and ends with it.
    state = state_folder(run, loaded.settings) if is_isolated(loaded.settings) else None
    async with (
        opened_engine(run, loaded.settings) as engine,
        open_gateway(loaded.settings, loaded.tools, engine, state, for_one_call=for_one_call) as opened,
    ):
        yield opened
