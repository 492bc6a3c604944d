"""Builds the supervisor: `python server/supervisor/build.py [--all | --sanitize OUT | --fuzz NAME OUT]`.

Zig's C compiler makes static binaries of it; they go to `server/taskcell/supervisor/bin/`.
What is up to date is not built again.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
SOURCE = HERE / "src"
BIN = HERE.parent / "taskcell" / "supervisor" / "bin"
ARCHITECTURES = ("x86_64", "aarch64")
#: What hosts call the two; containers are Linux wherever they run, so a Mac's own architecture counts too.
MACHINES = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}

WARNINGS = ["-Wall", "-Wextra", "-Werror", "-Wconversion", "-Wshadow", "-Wstrict-prototypes", "-Wvla"]
COMMON = ["-std=c11", "-D_GNU_SOURCE", *WARNINGS]
#: Nothing unwinds the stack of a stripped binary, and the tables for it are a sixth of its size.
STATIC = ["-Os", "-static", "-s", "-fstack-protector-strong", "-fno-asynchronous-unwind-tables", "-fno-unwind-tables"]
SANITIZE = ["-g", "-O1", "-fno-omit-frame-pointer", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
#: Counts which lines run; gcov reads it.
COVER = ["-g", "-O0", "--coverage"]
#: The files that each harness of tests/fuzz needs: of the modules that it tries, none waits, starts or sends anything.
FUZZED = {
    "frame": ("src/base/frame.c", "src/base/bytes.c"),
    "request": ("src/base/request.c", "src/base/bytes.c"),
    "table": (
        "tests/fuzz/expected.c",
        *("src/init/table.c", "src/init/answer.c", "src/init/report.c", "src/init/stream.c", "src/init/watch.c"),
        *("src/base/frame.c", "src/base/spool.c", "src/base/bytes.c"),
    ),
}
#: musl itself is compiled the first time: about a minute, several on a machine that is busy.
BUILD_TIMEOUT = 900


class BuildError(Exception):
    """The supervisor cannot be built; the message is one sentence."""


def own_architecture() -> str:
    """The architecture of this machine's containers."""
    machine = platform.machine().lower()
    if machine not in MACHINES:
        raise BuildError(f"The supervisor is built for x86_64 and aarch64, not for this machine's '{machine}'.")
    return MACHINES[machine]


def build(architectures: list[str]) -> dict[str, Path]:
    """Build the static supervisor for each architecture, where that is not done already; where the binaries are."""
    BIN.mkdir(parents=True, exist_ok=True)
    return {name: _build_static(name, BIN / f"supervisor-{name}") for name in architectures}


def build_with_gcc(sources: list[Path], out: Path, instruments: list[str] = SANITIZE) -> None:
    """Build with gcc, for tests: with its address and undefined-behaviour sanitizers, or with `COVER`."""
    gcc = shutil.which("gcc")
    if gcc is None:
        raise BuildError("gcc is needed for the sanitized build; install it (apt-get install gcc libc6-dev).")
    _run(
        [gcc, *COMMON, *instruments, "-I", str(SOURCE), *map(str, sources), "-lcrypt", "-o", str(out)],
        dict(os.environ),
    )


def sources() -> list[Path]:
    return sorted(SOURCE.rglob("*.c"))


def fuzz_sources(name: str) -> list[Path]:
    """A harness of `FUZZED`, the driver that feeds it, and the modules that it tries."""
    harness = HERE / "tests" / "fuzz"
    return [harness / "main.c", harness / f"fuzz_{name}.c", *(HERE / path for path in FUZZED[name])]


def _build_static(architecture: str, target: Path) -> Path:
    stamp = target.with_name(f".{target.name}.stamp")
    wanted = _fingerprint(architecture)
    if target.exists() and stamp.exists() and stamp.read_text("ascii") == wanted:
        return target
    environment = {"ZIG_GLOBAL_CACHE_DIR": str(_cache() / "zig"), **os.environ}
    # Beside the target and renamed: a build that runs at the same time never shows half a binary.
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".build-") as folder:
        made = Path(folder) / target.name
        zig = [sys.executable, "-m", "ziglang", "cc", "-target", f"{architecture}-linux-musl"]
        _run([*zig, *COMMON, *STATIC, "-I", str(SOURCE), *map(str, sources()), "-o", str(made)], environment)
        made.chmod(0o755)
        made.replace(target)
    stamp.write_text(wanted, "ascii")
    return target


def _run(command: list[str], environment: dict[str, str]) -> None:
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=BUILD_TIMEOUT, check=False
        )
    except OSError as error:
        raise BuildError(f"The supervisor's compiler cannot be run: {error}.") from error
    except subprocess.TimeoutExpired:
        raise BuildError(f"The supervisor's compiler did not finish within {BUILD_TIMEOUT} s.") from None
    if done.returncode:
        raise BuildError(f"The supervisor does not compile: {(done.stderr or done.stdout).strip()}")


def _fingerprint(architecture: str) -> str:
    """Of all that goes into a binary."""
    digest = hashlib.sha256()
    for part in (architecture, _zig_version(), *COMMON, *STATIC):
        digest.update(part.encode() + b"\0")
    for path in sorted(SOURCE.rglob("*.[ch]")):
        digest.update(path.relative_to(SOURCE).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _zig_version() -> str:
    try:
        return importlib.metadata.version("ziglang")
    except importlib.metadata.PackageNotFoundError:
        raise BuildError("The supervisor is compiled by the package 'ziglang'; install it with pip.") from None


def _cache() -> Path:
    """A fixed folder: an isolated build's own one would compile musl anew each time."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "taskcell"


def main() -> int:
    parser = argparse.ArgumentParser(description="Build the supervisor.")
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--all", action="store_true", help="both architectures; else only this machine's own")
    choice.add_argument("--sanitize", metavar="OUT", type=Path, help="a binary with gcc's sanitizers, for tests")
    choice.add_argument("--fuzz", nargs=2, metavar=("NAME", "OUT"), help=f"a fuzzing harness: {', '.join(FUZZED)}")
    options = parser.parse_args()
    try:
        if options.sanitize:
            build_with_gcc(sources(), options.sanitize)
        elif options.fuzz:
            name, out = options.fuzz
            if name not in FUZZED:
                parser.error(f"there is no harness '{name}'; there are {', '.join(FUZZED)}")
            build_with_gcc(fuzz_sources(name), Path(out))
        else:
            for path in build(list(ARCHITECTURES) if options.all else [own_architecture()]).values():
                print(path, path.stat().st_size)  # noqa: T201
    except BuildError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
