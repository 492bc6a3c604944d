"""The default image: what is in it, and two ways to build it that need no image registry where they can do without.

On Linux with `mmdebstrap`, Debian's packages are unpacked into a tar that the engine imports; elsewhere the engine
builds the same definition from its own `debian:bookworm-slim`.
"""

from __future__ import annotations

import hashlib
import json
import shlex
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from subprocess import DEVNULL, PIPE, STDOUT
from typing import Protocol

import anyio
from anyio.abc import Process

from taskcell.errors import EngineError

REFERENCE = "taskcell/base:latest"
#: The label that carries `definition_hash` of what an image was built from.
DEFINITION_LABEL = "taskcell.definition"
#: Megabytes of the built image, measured on x86_64.
MEGABYTES = 505

#: Seconds. A build takes about a minute on a good line; twenty minutes is a slow mirror, longer is a dead one.
BUILD_TIMEOUT = 1200.0
#: Seconds that mmdebstrap gets to unmount and delete its tree after SIGTERM; deleting 300 MB takes one or two.
CLEANUP_TIMEOUT = 30.0
#: Lines of a failed build that go into the error; apt's reason stands in its last few.
_LAST_LINES = 8
#: Not /tmp: that is often a file system in memory, too small for an image or mounted without device files.
TEMPORARY_FOLDER = Path("/var/tmp")  # noqa: S108 - only the parent of a folder with a random name

#: Called with a sentence on what the build does next.
Announce = Callable[[str], None]


class ImageEngine(Protocol):
    """What the builds of images need of an engine."""

    async def image_labels(self, reference: str) -> Mapping[str, str] | None:
        """The image's labels; None when the engine does not have it."""

    async def image_architecture(self, reference: str) -> str:
        """The architecture of an image that the engine has, such as `amd64`. Raises EngineError."""

    async def image_output(self, reference: str, script: str) -> str:
        """What a shell script prints in a container of the image, without a network. Raises EngineError."""

    async def why_not_pulled(self, reference: str) -> str:
        """Why the image cannot be pulled, as its registry says; empty if it can. Nothing is pulled."""

    async def import_image(self, tar: Path, reference: str, changes: Sequence[str]) -> None:
        """Make an image of a root file system's tar; `changes` are Dockerfile instructions. Raises EngineError."""

    async def build_image(
        self, dockerfile: str, reference: str, report: Announce, context: Path | None = None, *, cached: bool = False
    ) -> None:
        """Build a Dockerfile, if `cached` with what was built before; `context` is a folder of what it copies.

        Raises EngineError.
        """


@dataclass(frozen=True, slots=True)
class ImageDefinition:
    """What the image holds, whichever way it is built.

    Arguments:
        suite: Debian's name of the release.
        base: image to start from where the engine builds.
        packages: Debian packages beside the suite's required ones; recommended packages stay out.
        uid: user and group id of `user`, whose password is locked; its group `sudo` serves profiles with sudo alone.
        excluded: path patterns that dpkg leaves out, as `debian:*-slim` does.
        removed: path patterns that are deleted after the packages are installed.
    """

    suite: str
    base: str
    packages: tuple[str, ...]
    user: str
    uid: int
    home: str
    login_shell: str
    environment: tuple[tuple[str, str], ...]
    excluded: tuple[str, ...]
    removed: tuple[str, ...]

    def setup(self) -> str:
        """The shell script that turns the unpacked packages into the image; it runs as root inside of it."""
        uid, user, shell = self.uid, self.user, self.login_shell
        return " && ".join(
            (
                f"groupadd --gid {uid} {user}",
                f"useradd --uid {uid} --gid {uid} --groups sudo --home-dir {self.home} --no-create-home "
                f"--shell {shell} {user}",
                f"install -d -m 0755 -o {uid} -g {uid} {self.home}",
                # The same shell without a dynamic linker: it starts in half the time, and every command starts one.
                "ln -s /bin/bash-static /usr/local/bin/bash",
                # Else git refuses to work in a folder of the host that shows another owner in the sandbox. What it
                # guards against, another user's configuration, does not exist where there is one user.
                "git config --system safe.directory '*'",
                # Else each `git init` prints ten lines about the name.
                "git config --system init.defaultBranch main",
                ": > /etc/machine-id",
                f"rm -f {' '.join(self.removed)}",
                "rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/cache/ldconfig/* /var/log/*.log /var/log/apt",
            )
        )

    def changes(self) -> tuple[str, ...]:
        """The image's metadata as Dockerfile instructions."""
        return (
            f"LABEL {DEFINITION_LABEL}={definition_hash(self)}",
            *(f"ENV {name}={value}" for name, value in self.environment),
            f"USER {self.uid}:{self.uid}",
            f"WORKDIR {self.home}",
            f'CMD ["{self.login_shell}"]',
        )


#: What an agent reaches for in its first minute. A sandbox has no network by default: what is not here cannot be had.
_PACKAGES = (
    "bash", "bash-static", "bc", "bsdextrautils", "bzip2", "ca-certificates", "coreutils", "curl", "diffutils", "file",
    "findutils", "g++", "gawk", "gcc", "git", "grep", "gzip", "iproute2", "jq", "less", "libc6-dev", "lsof", "make",
    "netcat-openbsd", "openssh-client", "openssl", "patch", "pkg-config", "procps", "psmisc", "python-is-python3",
    "python3", "python3-dev", "python3-pil", "python3-pip", "python3-pytest", "python3-venv", "ripgrep", "rsync", "sed",
    "sqlite3", "sudo", "tar", "time", "tree", "tzdata", "unzip", "wget", "xxd", "xz-utils", "zip", "zstd",
)  # fmt: skip

#: What a model should know to be there, in few words: what comes with every Debian system is not among it.
PROGRAMS = "python 3.11 (pip, venv, pytest), gcc, g++, make, git, curl, jq, rg, sqlite3, ssh, unzip, xxd"

DEFAULT = ImageDefinition(
    suite="bookworm",
    base="debian:bookworm-slim",
    packages=_PACKAGES,
    user="agent",
    uid=1000,
    home="/workspace",
    login_shell="/bin/bash",
    environment=(
        # The last entry is where pip puts programs for a user who cannot write to the system's folders. It is last, so
        # that a file in the workspace never takes the place of a program of the image.
        ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/workspace/.local/bin"),
        # Not LANG: of what it means, only the characters differ from C, and a program reads one file instead of twelve.
        ("LC_CTYPE", "C.UTF-8"),
        # Without it, bash looks its user up at each start.
        ("SHELL", "/bin/bash"),
    ),
    excluded=("/usr/share/man/*", "/usr/share/info/*", "/usr/share/locale/*", "/usr/share/doc/*"),
    removed=(
        # Makes pip refuse to install outside of a virtual environment, to protect the system's Python. Here that is
        # read-only, and the sandbox is thrown away: pip installs into the user's own folder.
        "/usr/lib/python3*/EXTERNALLY-MANAGED",
        # 57 MB that only developers of gcc, and programs that contain Python whole, have a use for.
        "/usr/bin/*lto-dump*",
        "/usr/lib/python3*/config-*/libpython*.a /usr/lib/*/libpython*.a",
    ),
)


def definition_hash(definition: ImageDefinition = DEFAULT) -> str:
    """Sixteen hex digits that change whenever an image built from `definition` would."""
    parts = {**asdict(definition), "setup": definition.setup()}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def dockerfile(definition: ImageDefinition = DEFAULT) -> str:
    """The definition as a Dockerfile that needs no build context."""
    install = (
        "apt-get update && DEBIAN_FRONTEND=noninteractive "
        f"apt-get install -y --no-install-recommends {' '.join(definition.packages)}"
    )
    lines = (f"FROM {definition.base}", f"RUN {install} && {definition.setup()}", *definition.changes())
    return "\n".join(lines) + "\n"


def mmdebstrap_command(target: Path, definition: ImageDefinition = DEFAULT) -> list[str]:
    """The argument list that writes the definition's root file system to `target`, a tar."""
    return [
        "mmdebstrap",
        "--variant=minbase",
        f"--include={','.join(definition.packages)}",
        *(f"--dpkgopt=path-exclude={pattern}" for pattern in definition.excluded),
        "--dpkgopt=path-include=/usr/share/doc/*/copyright",
        f'--customize-hook=chroot "$1" /bin/sh -c {shlex.quote(definition.setup())}',
        definition.suite,
        str(target),
    ]


async def is_current(engine: ImageEngine, *, reference: str = REFERENCE) -> bool:
    """Whether the engine has the image, built from today's definition. Raises EngineError."""
    labels = await engine.image_labels(reference)
    return labels is not None and labels.get(DEFINITION_LABEL) == definition_hash()


async def build(
    engine: ImageEngine,
    *,
    reference: str = REFERENCE,
    report: Announce,
    force: bool = False,
    mmdebstrap: str | None = None,
) -> None:
    """Build the default image under the name `reference` where that is missing or outdated, replacing what had it.

    Arguments:
        report: takes one line of progress at a time.
        force: build also what is current, for newer versions of Debian's packages.
        mmdebstrap: path of the program; None means the one on PATH, and the engine builds when there is none.

    Raises:
        EngineError: the packages could not be fetched, the engine refused the image, or BUILD_TIMEOUT passed.
    """
    if not force and await is_current(engine, reference=reference):
        report(f"{reference} is up to date.")
        return
    program = mmdebstrap or shutil.which("mmdebstrap")
    try:
        with anyio.fail_after(BUILD_TIMEOUT):
            if program is None:
                report(f"Building {reference} from {DEFAULT.base} with the engine: {MEGABYTES} MB, about a minute.")
                await engine.build_image(dockerfile(), reference, report)
            else:
                await _bootstrap(engine, program, reference, report)
    except TimeoutError:
        raise EngineError(
            f"The image {reference} was not built within {BUILD_TIMEOUT / 60:.0f} minutes; "
            "check that Debian's packages can be reached, then run `taskcell image build` again."
        ) from None
    report(f"Built {reference}.")


async def _bootstrap(engine: ImageEngine, program: str, reference: str, report: Announce) -> None:
    with tempfile.TemporaryDirectory(prefix="taskcell-image-", dir=TEMPORARY_FOLDER) as name:
        unpack = _make_unpack_folder(Path(name))
        tar = Path(name) / "root.tar"
        packages = f"Debian {DEFAULT.suite} and {len(DEFAULT.packages)} packages"
        report(f"Unpacking {packages} for {reference}: {MEGABYTES} MB, about a minute.")
        await _run(["env", f"TMPDIR={unpack}", program, *mmdebstrap_command(tar)[1:]])
        report("Importing it into the engine.")
        await engine.import_image(tar, reference, DEFAULT.changes())


def _make_unpack_folder(parent: Path) -> Path:
    """A folder that mmdebstrap can use without root too, when it unpacks as another user in a user namespace."""
    parent.chmod(0o711)
    folder = parent / "unpack"
    folder.mkdir()
    folder.chmod(0o1777)
    return folder


async def _run(argv: list[str]) -> None:
    """Run mmdebstrap to its end; when cancelled, let it unmount and delete its tree first."""
    # A cancel while it is being started would kill it at once, with its mounts left behind.
    with anyio.CancelScope(shield=True):
        process = await anyio.open_process(argv, stdin=DEVNULL, stdout=PIPE, stderr=STDOUT, start_new_session=True)
    last: list[str] = []
    try:
        await _keep_last_lines(process, last)
        await process.wait()
    finally:
        with anyio.CancelScope(shield=True):
            await _end(process)
    if process.returncode != 0:
        raise EngineError(
            f"mmdebstrap could not build the image (exit code {process.returncode}); check that Debian's packages "
            "can be reached and that its disk has 1 GB left. It said:\n" + "\n".join(last)
        )


async def _keep_last_lines(process: Process, last: list[str]) -> None:
    if process.stdout is None:
        return
    rest = b""
    async for chunk in process.stdout:
        *lines, rest = (rest + chunk).replace(b"\r", b"\n").split(b"\n")
        last.extend(text for line in lines if (text := line.decode("utf-8", "replace").strip()))
        del last[:-_LAST_LINES]


async def _end(process: Process) -> None:
    """End the process if it still runs: SIGTERM, time to clean up, SIGKILL."""
    if process.returncode is None:
        process.terminate()
        with anyio.move_on_after(CLEANUP_TIMEOUT):
            await process.wait()
    if process.returncode is None:
        process.kill()
        await process.wait()
    await process.aclose()
