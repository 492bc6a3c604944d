"""Images with the real compilers and interpreters of six languages, laid out as the languages' own images are.

Each is a layer of Debian's packages on the default image, built by the engine without a registry. Its label is the hash
of its Dockerfile and of the default image: one that is current is not built again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import docker

from language_images import SYSTEM
from taskcell.engine.docker import images
from taskcell.images.default import DEFINITION_LABEL, REFERENCE, definition_hash

#: Lines of a failed build that are shown; apt's reason stands in its last few.
_LAST_LINES = 12


@dataclass(frozen=True)
class Toolchain:
    """One image.

    Arguments:
        packages: Debian packages; recommended ones stay out.
        before: folders that the packages' own scripts expect, and that a slim image leaves out.
        setup: shell command that makes the layout of the language's own image.
        environment: the ENV instructions of the language's own image.
    """

    name: str
    packages: tuple[str, ...]
    setup: str
    environment: Mapping[str, str]
    before: tuple[str, ...] = ()

    @property
    def reference(self) -> str:
        return f"taskcell-test/real-{self.name}:latest"

    def dockerfile(self) -> str:
        install = (
            f"{''.join(f'mkdir -p {folder} && ' for folder in self.before)}"
            "apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "
            f"{' '.join(self.packages)} && rm -rf /var/lib/apt/lists/* /var/cache/apt/* && "
            if self.packages
            else ""
        )
        lines = [f"FROM {REFERENCE}", "USER 0:0", f"RUN {install}{self.setup}"]
        lines += [f"ENV {name}={value}" for name, value in self.environment.items()]
        return "\n".join([*lines, "USER 1000:1000"]) + "\n"

    def definition(self) -> str:
        """Sixteen hex digits that change whenever the image would."""
        return hashlib.sha256(f"{definition_hash()}\n{self.dockerfile()}".encode()).hexdigest()[:16]


#: What the image of gcc has: the default image has it already.
C = Toolchain("c", (), "true", {"CC": "gcc"})
#: The image of Python has its own interpreter before Debian's; here a virtual environment with pip stands for it.
PYTHON = Toolchain(
    "python",
    (),
    "python3 -m venv /opt/venv",
    {"VIRTUAL_ENV": "/opt/venv", "PYTHONUNBUFFERED": "1", "PATH": f"/opt/venv/bin:{SYSTEM}"},
)
GO = Toolchain(
    "go",
    ("golang-go",),
    "ln -s /usr/lib/go-1.19 /usr/local/go && install -d -m 1777 /go /go/src /go/bin",
    {"GOTOOLCHAIN": "local", "GOPATH": "/go", "PATH": f"/go/bin:/usr/local/go/bin:{SYSTEM}"},
)
RUST = Toolchain(
    "rust",
    ("cargo", "rustc"),
    "install -d -m 0777 /usr/local/rustup /usr/local/cargo /usr/local/cargo/bin && "
    "ln -s /usr/bin/cargo /usr/bin/rustc /usr/local/cargo/bin/",
    {"RUSTUP_HOME": "/usr/local/rustup", "CARGO_HOME": "/usr/local/cargo", "PATH": f"/usr/local/cargo/bin:{SYSTEM}"},
)
NODE = Toolchain(
    "node",
    ("nodejs", "npm"),
    "ln -s /usr/bin/node /usr/local/bin/node && ln -s /usr/bin/npm /usr/local/bin/npm",
    {"PATH": SYSTEM},
)
#: OpenJDK; `update-alternatives` links its manual pages.
JAVA = Toolchain(
    "java",
    ("openjdk-17-jdk-headless",),
    "ln -s /usr/lib/jvm/java-17-openjdk-* /opt/java",
    {"JAVA_HOME": "/opt/java", "PATH": f"/opt/java/bin:{SYSTEM}"},
    before=("/usr/share/man/man1",),
)
#: Maven; with a repository of Debian's packages, where a test finds a library and the plugin that compiles.
MAVEN = Toolchain(
    "maven",
    ("maven", "openjdk-17-jdk-headless", "libmaven-compiler-plugin-java", "libcommons-lang3-java", "junit5"),
    "true",
    {"PATH": SYSTEM},
    before=("/usr/share/man/man1",),
)


def ensure(api: docker.APIClient, toolchain: Toolchain) -> str:
    """The name of the image on the engine; it is built first where it is missing or outdated."""
    has = images.labels(api, toolchain.reference) or {}
    if has.get(DEFINITION_LABEL) != toolchain.definition():
        said: list[str] = []
        text = f"{toolchain.dockerfile()}LABEL {DEFINITION_LABEL}={toolchain.definition()}\n"
        try:
            images.build(api, text, toolchain.reference, said.append)
        except Exception as error:
            error.add_note("\n".join(said[-_LAST_LINES:]))
            raise
    return toolchain.reference
