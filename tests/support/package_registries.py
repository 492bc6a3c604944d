"""Registries of packages as files that any web server serves: of Go, of cargo and of Maven, with one package each."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import tarfile
import zipfile
from pathlib import Path

#: What the packages say.
TEXT = "from the registry"
_GIT_TIMEOUT = 60


def add_go(root: Path) -> None:
    """A module proxy below `go/` (go.dev/ref/mod#goproxy-protocol), with `greeting.test/hello`."""
    folder = root / "go" / "greeting.test" / "hello" / "@v"
    folder.mkdir(parents=True)
    module = "module greeting.test/hello\n"
    (folder / "list").write_text("v1.0.0\n")
    (folder / "v1.0.0.info").write_text('{"Version": "v1.0.0", "Time": "2020-01-01T00:00:00Z"}')
    (folder / "v1.0.0.mod").write_text(module)
    with zipfile.ZipFile(folder / "v1.0.0.zip", "w") as archive:
        archive.writestr("greeting.test/hello@v1.0.0/go.mod", module)
        archive.writestr("greeting.test/hello@v1.0.0/hello.go", f'package hello\n\nconst Text = "{TEXT}"\n')


def add_cargo(root: Path, url: str) -> None:
    """A registry whose index is the repository `index.git` (doc.rust-lang.org/cargo/reference/registries.html).

    Arguments:
        url: where `root` is served.
    """
    crate = _crate()
    (root / "crates").mkdir()
    (root / "crates" / "greeting-1.0.0.crate").write_bytes(crate)
    index = root.parent / "index"
    entry = index / "gr" / "ee" / "greeting"
    entry.parent.mkdir(parents=True)
    described = {"name": "greeting", "vers": "1.0.0", "deps": [], "features": {}, "yanked": False}
    entry.write_text(json.dumps({**described, "cksum": hashlib.sha256(crate).hexdigest()}) + "\n")
    (index / "config.json").write_text(json.dumps({"dl": f"{url}/crates/{{crate}}-{{version}}.crate"}))
    script = (
        "git init -q . && git add . && git -c user.name=t -c user.email=t@t commit -qm index && "
        "git clone -q --bare . ../served/index.git && git -C ../served/index.git update-server-info"
    )
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(root.parent), "GIT_CONFIG_NOSYSTEM": "1"}
    subprocess.run(["bash", "-c", script], cwd=index, env=environment, check=True, timeout=_GIT_TIMEOUT)


def _crate() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        for path, text in (
            ("Cargo.toml", '[package]\nname = "greeting"\nversion = "1.0.0"\nedition = "2021"\n'),
            ("src/lib.rs", f'pub const TEXT: &str = "{TEXT}";\n'),
        ):
            entry = tarfile.TarInfo(f"greeting-1.0.0/{path}")
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))
    return file.getvalue()


def add_maven(root: Path) -> None:
    """A repository below `maven/` with a parent of projects: to have it, Maven needs no plugin."""
    folder = root / "maven" / "greeting" / "parent" / "1.0"
    folder.mkdir(parents=True)
    pom = (
        b'<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>'
        b"<groupId>greeting</groupId><artifactId>parent</artifactId><version>1.0</version><packaging>pom</packaging>"
        b"</project>"
    )
    (folder / "parent-1.0.pom").write_bytes(pom)
    (folder / "parent-1.0.pom.sha1").write_text(hashlib.sha1(pom, usedforsecurity=False).hexdigest())


def maven_project(url: str) -> str:
    """The pom.xml of a project whose parent is in the repository. `url`: where the registry's root is served."""
    return (
        '<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>'
        "<parent><groupId>greeting</groupId><artifactId>parent</artifactId><version>1.0</version><relativePath/>"
        "</parent><artifactId>child</artifactId><packaging>pom</packaging><repositories><repository><id>own</id>"
        f"<url>{url}/maven</url></repository></repositories></project>"
    )
