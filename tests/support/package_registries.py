"""Registries of packages as files that any web server serves: of Go, of cargo and of Maven."""

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
#: Where Debian keeps what its packages offer to Maven; 16 MB.
DEBIANS_MAVEN = "/usr/share/maven-repo"
_MAVEN_TIMEOUT = 60


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


def add_maven(root: Path, image: str) -> None:
    """A repository below `maven/`: the one that Debian's packages make in an image, with their links followed."""
    (root / "maven").mkdir()
    packed = ["docker", "run", "--rm", "--network", "none", "--entrypoint", "tar", image, "-chf", "-", "-C"]
    done = subprocess.run([*packed, DEBIANS_MAVEN, "."], capture_output=True, check=True, timeout=_MAVEN_TIMEOUT)
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        archive.extractall(root / "maven", filter="data")


def maven_project(url: str) -> str:
    """The pom.xml of a project with a dependency, which takes that, and the plugin that compiles, from one repository.

    Arguments:
        url: where the registry's root is served.
    """
    repository = f"<id>central</id><url>{url}/maven</url>"
    return (
        '<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion><groupId>own</groupId>'
        "<artifactId>own</artifactId><version>1</version><properties><maven.compiler.source>17</maven.compiler.source>"
        "<maven.compiler.target>17</maven.compiler.target>"
        "<project.build.sourceEncoding>UTF-8</project.build.sourceEncoding></properties>"
        f"<repositories><repository>{repository}</repository></repositories>"
        f"<pluginRepositories><pluginRepository>{repository}</pluginRepository></pluginRepositories>"
        "<dependencies><dependency><groupId>org.apache.commons</groupId><artifactId>commons-lang3</artifactId>"
        "<version>3.12.0</version></dependency></dependencies></project>"
    )


#: A program that needs the dependency, and what Maven is asked to do: to compile, with the version that Debian has.
MAVEN_PROGRAM = (
    "import org.apache.commons.lang3.StringUtils;\n"
    'public class Own { public static void main(String[] a) { System.out.println(StringUtils.capitalize("built")); } }'
)
MAVEN_COMPILE = "org.apache.maven.plugins:maven-compiler-plugin:3.10.1:compile"
