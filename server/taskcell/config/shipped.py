"""Find the folder of taskcell itself, and the manifests that came with it."""

from __future__ import annotations

from pathlib import Path

#: The folder of the package: its code, the supervisor, and the manifests of an installed one.
PACKAGE = Path(__file__).resolve().parents[1]


def shipped_manifests() -> Path | None:
    """Return the folder of manifests that came with taskcell, in the installed package or in the source checkout."""
    if (PACKAGE / "manifests").is_dir():
        return PACKAGE / "manifests"
    checkout = PACKAGE.parent.parent
    if (checkout / "pyproject.toml").is_file() and (checkout / "manifests").is_dir():
        return checkout / "manifests"
    return None
