"""The kinds of engine that `[engine] kind` can name. A new one is a folder beside this file and an entry in KINDS."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from taskcell.config.settings import EngineSettings
from taskcell.errors import ConfigError

if TYPE_CHECKING:
    from taskcell.engine.base import Engine


@dataclass(frozen=True, slots=True)
class EngineKind:
    """What must be known about a kind of engine before one is made.

    Arguments:
        make: an engine, from the table `[engine]` and the server's environment. It connects to nothing yet, and
            imports what only this kind needs, at the latest at its first use.
        isolates: commands cannot reach the machine that they run on.
        outlives_server: its sandboxes can outlive their server and be adopted by the next one.
    """

    make: Callable[[EngineSettings, Mapping[str, str]], Engine]
    isolates: bool = True
    outlives_server: bool = True


def _docker(settings: EngineSettings, environ: Mapping[str, str]) -> Engine:
    from taskcell.engine.deferred import deferred

    def make() -> Engine:
        from taskcell.engine.docker.calls import Calls
        from taskcell.engine.docker.engine import DockerEngine

        return DockerEngine(Calls(settings.host, environ), settings.runtime)

    return deferred(make)


def _local(settings: EngineSettings, environ: Mapping[str, str]) -> Engine:
    from taskcell.engine.local import LocalEngine

    return LocalEngine()


def _kubernetes(settings: EngineSettings, environ: Mapping[str, str]) -> Engine:
    from taskcell.engine.deferred import deferred

    def make() -> Engine:
        from taskcell.engine.kubernetes.api import Api
        from taskcell.engine.kubernetes.engine import KubernetesEngine
        from taskcell.engine.kubernetes.kubeconfig import find_cluster

        return KubernetesEngine(Api(lambda: find_cluster(environ, settings.host)), settings.storage_class)

    return deferred(make, has_images=False)


KINDS: dict[str, EngineKind] = {
    "docker": EngineKind(_docker),
    "kubernetes": EngineKind(_kubernetes),
    "local": EngineKind(_local, isolates=False, outlives_server=False),
}


def isolation() -> Mapping[str, bool]:
    """Every kind by name, and whether it isolates: what the configuration is checked against."""
    return {name: kind.isolates for name, kind in KINDS.items()}


def kind_of(settings: EngineSettings) -> EngineKind:
    """The kind that the settings name. Raises ConfigError."""
    kind = KINDS.get(settings.kind)
    if kind is None:
        raise ConfigError(f"engine.kind: must be one of {', '.join(KINDS)}.")
    return kind
