"""The engine that is Docker, or speaks its API. The docker package is imported only below this folder."""

from taskcell.engine.docker.engine import DockerEngine

__all__ = ["DockerEngine"]
