"""Hatchling's hook: a wheel carries the supervisor for both architectures, an editable install this machine's own."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PLACE = "taskcell/supervisor/bin"


def _load_build(root: Path) -> ModuleType:
    """`build.py` from beside this file: a build's environment has the project's folders on no path."""
    spec = importlib.util.spec_from_file_location("supervisor_build", root / "server" / "supervisor" / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class SupervisorBuildHook(BuildHookInterface[Any]):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        build = _load_build(Path(self.root))
        if version == "editable":
            build.build([build.own_architecture()])
            return
        for path in build.build(list(build.ARCHITECTURES)).values():
            build_data["force_include"][str(path)] = f"{PLACE}/{path.name}"
        build_data["force_include"][str(Path(self.root) / "manifests")] = "taskcell/manifests"
