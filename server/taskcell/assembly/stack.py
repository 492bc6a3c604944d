"""What a gateway is made from: the settings, the tools that the manifests declare, the policy and the engine."""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from taskcell.assembly.folder import check_answers
from taskcell.assembly.invocation import Invocation
from taskcell.config import load as config
from taskcell.config.settings import Settings
from taskcell.config.shipped import shipped_manifests
from taskcell.engine import kinds
from taskcell.environment import Environment
from taskcell.errors import ConfigError, ManifestError
from taskcell.log import Logger

# What only a gateway needs is imported by the functions that make it: a server answers its client's first request with
# the settings alone.
if TYPE_CHECKING:
    from taskcell.audit.log import AuditLog
    from taskcell.deployment.base import Deployment
    from taskcell.deployment.cluster.deployment import ClusterDeployment
    from taskcell.engine.base import Engine
    from taskcell.model import Profile
    from taskcell.policy.policy import Policy
    from taskcell.skills.manifest import LeftOut, Skill
    from taskcell.skills.manifest_files import Stamp
    from taskcell.tools.tool import Tool

log = Logger(__name__)

#: Seconds to close connections, or to delete the local engine's folder; neither waits for anyone else.
ENGINE_CLOSE_TIMEOUT = 1.0


@dataclass(frozen=True, slots=True)
class Loaded:
    """Everything that was declared, checked.

    Arguments:
        stamp: how the manifests stood on the disk before they were read.
        left_out: skills that cannot be used.
        notes: keys of manifests that have no effect here, as `FILE:LINE: key: sentence`.
    """

    settings: Settings
    skills: tuple[Skill, ...]
    tools: Mapping[str, Tool]
    stamp: Stamp
    left_out: tuple[LeftOut, ...] = ()
    notes: tuple[str, ...] = ()


def profiles_of(loaded: Loaded) -> dict[str, Profile]:
    """Return every profile that is declared, by name: the terminal's, those of environments and of skills."""
    from taskcell.profile.build import terminal_profile
    from taskcell.tools import catalog

    settings = loaded.settings
    opened = [terminal_profile(settings.in_environment(Environment(name))) for name in settings.environments]
    return {**catalog.profiles(loaded.tools), **{profile.name: profile for profile in opened}}


def load(run: Invocation) -> Loaded:
    """Read configuration and manifests. Raises ConfigError, ManifestError."""
    return load_manifests(run, load_settings(run))


def load_manifests(run: Invocation, settings: Settings) -> Loaded:
    """Read the manifests. Raises ManifestError, ConfigError."""
    from taskcell.skills import manifest, manifest_files
    from taskcell.tools import catalog

    stamp = manifest_files.stamp(settings.manifest_paths)
    found = manifest.read(settings.manifest_paths, run.environ, catalog.reserved_names())
    if found.faults:
        raise ManifestError(list(found.faults))
    tools = catalog.build_tools(settings, found.skills, found.left_out)
    return Loaded(settings, found.skills, tools, stamp, found.left_out, found.notes)


def load_settings(run: Invocation) -> Settings:
    """Read the configuration. Raises ConfigError, also where the folder that it names does not answer."""
    settings = config.load(run.config, run.environ, run.cwd, engines=kinds.isolation())
    if settings.workspace_folder_as_written is not None:
        check_answers(settings.workspace_folder_as_written)
    return settings


def opens_for_sure(settings: Settings) -> bool:
    """Whether a gateway over these settings can be opened, if `authorize_folders` allows it: they are checked, and name
    nothing else that could be missing or faulty, which are manifests, tools and an audit log."""
    named = (
        settings.manifest_paths not in ((), (shipped_manifests(),)),
        settings.policy.rules,
        settings.tools.only,
        settings.tools.hide,
        settings.audit_file,
    )
    return not any(named)


def policy_of(settings: Settings, state: Path | None, audit: Path | None = None) -> Policy:
    """The policy that every profile and every command is judged by.

    Arguments:
        audit: path of the audit log; no sandbox may read it or write to it.
        state: the deployment's folder; whoever reads it can derive the tokens of the deployment's sandboxes.
    """
    from taskcell.policy.policy import Policy

    secret = (*settings.secret_files, *(() if state is None else (state.parent,)), *(() if audit is None else (audit,)))
    return Policy(settings.policy, (*settings.own_files, *secret), secret)


def authorize_folders(policy: Policy, settings: Settings) -> None:
    """Raise Denied if the policy refuses a folder of the host in which tasks' files are to be. Blocking."""
    if settings.workspace.persistent and settings.workspace_root is not None:
        policy.authorize_root(settings.workspace_root)
    if settings.workspace_folder is not None:
        from taskcell.profile.build import terminal_profile

        policy.authorize_folder(terminal_profile(settings))


def state_folder(run: Invocation, settings: Settings) -> Path | None:
    """Where the deployment's servers write what they know; None when the environment names no place for it."""
    own = _own_state(run)
    return None if own is None else own / "deployments" / settings.deployment_id


def cluster_of(run: Invocation, settings: Settings) -> ClusterDeployment | None:
    """The deployment whose servers reach each other at their `http.peer_url`; None where there is none.

    Raises ConfigError: the engine is not a cluster.
    """
    if not settings.http.peer_url:
        return None
    if settings.engine.kind != "kubernetes":
        raise ConfigError("http.peer_url: only servers with engine.kind = 'kubernetes' hand calls on; remove it.")
    from taskcell.deployment.cluster.deployment import ClusterDeployment
    from taskcell.engine.kubernetes.api import Api
    from taskcell.engine.kubernetes.kubeconfig import find_cluster

    api = Api(lambda: find_cluster(run.environ, settings.engine.host))
    own = state_folder(run, settings)
    return ClusterDeployment(
        api, settings.deployment_id, settings.http.peer_url, folder=own, store=settings.archive_store
    )


def deployment_of(run: Invocation, settings: Settings) -> Deployment:
    """The deployment, as one sees it that is none of its servers; leave it afterwards. Raises ConfigError."""
    from taskcell.deployment.folder import FolderDeployment
    from taskcell.deployment.state_folder import StateFolder

    return cluster_of(run, settings) or FolderDeployment(StateFolder(state_folder(run, settings)))


def archive_folder(run: Invocation, settings: Settings) -> Path | None:
    """Where the deployment's kept files and snapshots are; None where there is no place for them."""
    return settings.archive_store if settings.http.peer_url else state_folder(run, settings)


def audit_path(run: Invocation, settings: Settings) -> Path | None:
    """Where the audit log is; None when the configuration names no file and the environment no place for one."""
    if settings.audit_file is not None:
        return settings.audit_file
    own = _own_state(run)
    return None if own is None else own / "audit.jsonl"


def opened_audit(run: Invocation, settings: Settings) -> AuditLog | None:
    """The audit log, with its folder. None, and a line in the log, where no file is named and there is no place for it.

    Raises ConfigError: the file that is named cannot be written.
    """
    from taskcell.audit.log import AuditLog

    path = audit_path(run, settings)
    try:
        if path is not None:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not os.access(path.parent, os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            return AuditLog(path)
        reason = "HOME is not set"
    except OSError as error:
        reason = f"{path}: {error.strerror}"
    if settings.audit_file is not None:
        raise ConfigError(f"audit.path cannot be written ({reason}); name a file that can.")
    log.warning("There is no place for the audit log, so none is written; set audit.path.", reason=reason)
    return None


def _own_state(run: Invocation) -> Path | None:
    """Where this user's servers keep what outlives them; None when the environment names no place for it."""
    base = Path(run.environ.get("XDG_STATE_HOME", ""))
    if not base.is_absolute():
        home = Path(run.environ.get("HOME", ""))
        if not home.is_absolute():
            return None
        base = home / ".local" / "state"
    return base / "taskcell"


def warn_unless_isolated(settings: Settings) -> None:
    """Log a warning when commands are ordinary processes."""
    if not kinds.kind_of(settings.engine).isolates:
        kind = settings.engine.kind
        log.warning(f"The engine '{kind}' has no isolation: commands are ordinary processes of this machine.")


@asynccontextmanager
async def opened_engine(run: Invocation, settings: Settings) -> AsyncIterator[Engine]:
    """The configured engine, closed on leaving. Raises ConfigError."""
    engine = kinds.kind_of(settings.engine).make(settings.engine, run.environ)
    try:
        yield engine
    finally:
        with anyio.move_on_after(ENGINE_CLOSE_TIMEOUT, shield=True):
            await engine.aclose()
