"""The installed `taskcell` itself: where it is, and whether it runs as a desktop program would start it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from taskcell import __version__
from taskcell.errors import ConfigError

PROGRAM = "taskcell"
#: Seconds for `taskcell --version`, which takes half a second, on a busy machine.
RUN_TIMEOUT = 30.0
#: What a desktop program gives to what it starts, where it does not read the person's shell.
_BARE_PATH = "/usr/bin:/bin:/usr/sbin:/sbin"
#: Variables that say where a container engine is. A client that a desktop started does not have a shell's.
ENGINE_VARIABLES = ("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_CONFIG", "DOCKER_CERT_PATH", "DOCKER_TLS_VERIFY")


def find_program(environ: Mapping[str, str]) -> Path:
    """Return the absolute path of this installation's `taskcell`, which runs without a shell's variables.

    Raises:
        ConfigError: there is none, or it does not run.
    """
    for path in _candidates(environ):
        if path.is_file() and os.access(path, os.X_OK):
            check_program(path, environ)
            return path
    raise ConfigError(
        f"The program '{PROGRAM}' of this installation is not there. Install it with `pip install .`, "
        f"`pipx install .` or `uv tool install .`, then run its `{PROGRAM} install`."
    )


def _candidates(environ: Mapping[str, str]) -> Iterator[Path]:
    started = Path(sys.argv[0])
    if started.name == PROGRAM:
        yield Path(os.path.abspath(started))
    yield Path(sys.executable).parent / PROGRAM
    yield Path(sysconfig.get_path("scripts")) / PROGRAM
    found = shutil.which(PROGRAM, path=environ.get("PATH"))
    if found is not None:
        yield Path(os.path.abspath(found))


def bare_environment(environ: Mapping[str, str], own: Mapping[str, str] | None = None) -> dict[str, str]:
    """The variables that a desktop program's child has: hardly any, and those of its entry."""
    return {"PATH": _BARE_PATH, **({"HOME": environ["HOME"]} if "HOME" in environ else {}), **(own or {})}


def check_program(path: Path, environ: Mapping[str, str]) -> None:
    """Run `taskcell --version` without a shell's variables. Raises ConfigError if that is not this version."""
    try:
        done = subprocess.run(
            [path, "--version"],
            env=bare_environment(environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=RUN_TIMEOUT,
            check=False,
        )
    except OSError as error:
        raise ConfigError(f"{path} cannot run: {error.strerror}. Install taskcell again, then try again.") from None
    except subprocess.TimeoutExpired:
        raise ConfigError(f"{path} does not answer within {RUN_TIMEOUT:.0f} seconds; try again.") from None
    said = done.stdout.decode("utf-8", "replace").strip()
    if done.returncode != 0 or said != f"{PROGRAM} {__version__}":
        last = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:] or [said or "it says nothing"]
        raise ConfigError(
            f"{path} does not run without your shell's variables ({last[0]}). Install taskcell again, then try again."
        )


def engine_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables by which the engine is found now, for a server that is started without them.

    An address with a password is left out: a client's file is not the place for it.
    """
    found = {name: environ[name] for name in ENGINE_VARIABLES if environ.get(name)}
    return {name: value for name, value in found.items() if "@" not in value or urlsplit(value).password is None}
