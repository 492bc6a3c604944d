"""Images as the languages' own are: their variables and folders, and small programs at the places of the real ones.

Each is committed from the default image, so that it needs no registry and has a login profile as Debian's images do.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import docker

from observe import HOST_TIMEOUT, marker
from taskcell.images.default import REFERENCE

#: What Debian's and most languages' images have as PATH, behind their own folders.
SYSTEM = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class LanguageImage:
    """One image.

    Arguments:
        environment: its ENV instructions.
        programs: what stands at each path: a program that prints this line, a link where it begins with `->`, or the
            script itself where it begins with `#!`.
        files: other files, by path.
    """

    name: str
    environment: Mapping[str, str]
    programs: Mapping[str, str]
    files: Mapping[str, str] = field(default_factory=dict)


GOLANG = LanguageImage(
    "golang",
    {
        "GOLANG_VERSION": "1.25.4",
        "GOTOOLCHAIN": "local",
        "GOPATH": "/go",
        "PATH": f"/go/bin:/usr/local/go/bin:{SYSTEM}",
    },
    {"/usr/local/go/bin/go": "go version go1.25.4 linux/amd64", "/go/bin/dlv": "Delve Debugger"},
)
RUST = LanguageImage(
    "rust",
    {"RUSTUP_HOME": "/usr/local/rustup", "CARGO_HOME": "/usr/local/cargo", "PATH": f"/usr/local/cargo/bin:{SYSTEM}"},
    {"/usr/local/cargo/bin/cargo": "cargo 1.91.0", "/usr/local/cargo/bin/rg": "ripgrep of cargo"},
)
CONDA = LanguageImage(
    "conda",
    {"LANG": "C.UTF-8", "PATH": f"/opt/conda/bin:{SYSTEM}"},
    {"/opt/conda/bin/conda": "conda 25.9.1", "/opt/conda/bin/python": "Python 3.13.9 of conda"},
    {"/etc/profile.d/conda.sh": "export CONDA_EXE=/opt/conda/bin/conda\nexport PATH=/opt/conda/condabin:$PATH\n"},
)
VENV = LanguageImage(
    "venv",
    {"VIRTUAL_ENV": "/opt/venv", "PATH": f"/opt/venv/bin:/opt/tool/bin:{SYSTEM}"},
    {"/opt/venv/bin/python": "->/usr/bin/python3", "/opt/tool/bin/tool": "a tool"},
    {"/opt/venv/pyvenv.cfg": "home = /usr/bin\ninclude-system-site-packages = false\n"},
)
NVM = LanguageImage(
    "nvm",
    {"NVM_DIR": "/usr/local/nvm", "PATH": "/usr/local/nvm/versions/node/v24.11.0/bin:/usr/local/bin:/usr/bin:/bin"},
    {"/usr/local/nvm/versions/node/v24.11.0/bin/node": "v24.11.0"},
)
LANGUAGES = (GOLANG, RUST, CONDA, VENV, NVM)


@contextmanager
def built(api: docker.APIClient, image: LanguageImage) -> Iterator[str]:
    """The image on the engine, under a name that it has for as long as the context lasts."""
    reference = f"taskcell-test/{image.name}:{marker().replace('.', '-')}"
    container = api.create_container(REFERENCE, ["true"])["Id"]
    try:
        assert api.put_archive(container, "/", _archive(image))
        changes = [f"ENV {name}={value}" for name, value in image.environment.items()]
        repository, _, tag = reference.partition(":")
        api.commit(container, repository=repository, tag=tag, changes=changes)
    finally:
        api.remove_container(container, force=True)
    try:
        yield reference
    finally:
        api.remove_image(reference, force=True)


def environment_of(api: docker.APIClient, reference: str) -> dict[str, str]:
    """What a program has in a plain container of the image, as `docker run IMAGE env` shows it."""
    container = api.create_container(
        reference, ["env"], entrypoint=[], host_config=api.create_host_config(network_mode="none")
    )["Id"]
    try:
        api.start(container)
        assert api.wait(container, timeout=HOST_TIMEOUT)["StatusCode"] == 0
        lines = bytes(api.logs(container)).decode().splitlines()
    finally:
        api.remove_container(container, force=True)
    return dict(line.partition("=")[::2] for line in lines)


def _archive(image: LanguageImage) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for path, line in image.programs.items():
            if line.startswith("->"):
                _add(archive, path, link=line.removeprefix("->"))
            else:
                _add(archive, path, line if line.startswith("#!") else f"#!/bin/sh\necho '{line}'\n", mode=0o755)
        for path, content in image.files.items():
            _add(archive, path, content)
    return file.getvalue()


def _add(archive: tarfile.TarFile, path: str, content: str = "", mode: int = 0o644, link: str = "") -> None:
    entry = tarfile.TarInfo(path.lstrip("/"))
    entry.mode = mode
    if link:
        entry.type, entry.linkname = tarfile.SYMTYPE, link
    entry.size = len(content)
    archive.addfile(entry, io.BytesIO(content.encode()))
