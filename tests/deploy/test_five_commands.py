"""An ordinary user of the engine's group, with a new home, gets from a wheel to an agent that edits a project."""

from __future__ import annotations

import grp
import json
import os
import re
import secrets
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import anyio
import pytest
from mcp.client.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client

from asking import text_of

pytestmark = [pytest.mark.deploy, pytest.mark.engine, pytest.mark.anyio]

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SOCKET = Path("/var/run/docker.sock")
#: Seconds for one command on a busy machine: a wheel is compiled in one minute, and 40 packages are downloaded.
PATIENCE = 900
#: Where a user's programs are.
PATH = "/usr/local/bin:/usr/bin:/bin"
#: Of this machine's own settings, those by which pip finds packages.
PIP_SETTING = re.compile(r"^[a-z:.]*\.(index-url|extra-index-url|find-links|cert|constraint)='(.*)'$", re.MULTILINE)


@dataclass
class User:
    """A user of this machine who is in the group of the engine's socket."""

    name: str
    home: Path

    @property
    def environment(self) -> list[str]:
        """A bare environment, with what this machine's pip is set up to ask."""
        argv = [sys.executable, "-m", "pip", "config", "list"]
        found = subprocess.run(argv, capture_output=True, text=True, timeout=PATIENCE, check=True)
        # What stands later, such as the environment, counts more.
        pip = {f"PIP_{name.upper().replace('-', '_')}": value for name, value in PIP_SETTING.findall(found.stdout)}
        own = {"HOME": str(self.home), "USER": self.name, "LOGNAME": self.name, "PATH": PATH, "LANG": "C.UTF-8"}
        return [f"{name}={value}" for name, value in {**pip, **own}.items()]

    def argv(self, *words: str) -> list[str]:
        return ["runuser", "-u", self.name, "--", "env", "-i", "-C", str(self.home), *self.environment, *words]

    def run(self, line: str) -> str:
        """Run a line as a person types it; return what it prints."""
        done = subprocess.run(
            self.argv("bash", "-c", line), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        return done.stdout


@pytest.fixture(scope="module")
def user() -> Iterator[User]:
    if os.geteuid() != 0:
        pytest.skip("only root can make a user")
    name = f"taskcell-{secrets.token_hex(3)}"
    group = grp.getgrgid(SOCKET.stat().st_gid).gr_name
    parent = Path(tempfile.mkdtemp(prefix="taskcell-user-"))
    parent.chmod(0o755)
    home = parent / "home"
    useradd = ["useradd", "--create-home", "--home-dir", str(home), "--shell", "/bin/bash", "--groups", group, name]
    subprocess.run(useradd, check=True, timeout=PATIENCE)
    try:
        yield User(name, home)
    finally:
        subprocess.run(["userdel", "--force", name], check=False, timeout=PATIENCE, capture_output=True)
        shutil.rmtree(parent, ignore_errors=True)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder)]
    argv = [sys.executable, "-m", "pip", "wheel", *options, str(ROOT)]
    subprocess.run(argv, check=True, timeout=PATIENCE, stdin=subprocess.DEVNULL)
    [made] = folder.glob("taskcell-*.whl")
    return made


def block(language: str, word: str) -> str:
    """The README's one block of a language in which a word stands."""
    [found] = [text for text in re.findall(rf"^```{language}\n(.*?)^```$", README, re.M | re.S) if word in text]
    return found


def entry(user: User) -> tuple[str, list[str]]:
    """How Claude Code starts the server, as its file has it by now."""
    servers = json.loads((user.home / ".claude.json").read_text())["mcpServers"]
    return servers["taskcell"]["command"], servers["taskcell"]["args"]


async def test_five_commands_of_the_readme_lead_from_a_wheel_to_an_agent_that_edits_a_project(
    user: User, wheel: Path
) -> None:
    commands = block("sh", "taskcell-*.whl").splitlines()
    assert len(commands) == 5
    user.run("mkdir -p ~/code/site && echo '<h1>Helo</h1>' > ~/code/site/index.html")
    shutil.copy(wheel, user.home)
    for command in commands:
        user.run(command)
    command, arguments = entry(user)
    server = StdioServerParameters(command="runuser", args=user.argv(command, *arguments)[1:])
    site = user.home / "code" / "site"
    with anyio.fail_after(PATIENCE):
        async with Client(stdio_client(server)) as client:
            await client.call_tool("edit_file", {"path": "index.html", "old": "Helo", "new": "Hello"})
            made = await client.call_tool("terminal", {"command": "id -u && mkdir css && echo 'h1{}' > css/main.css"})
            assert text_of(made).startswith(f"{site.stat().st_uid}\n")
    assert (site / "index.html").read_text() == "<h1>Hello</h1>\n"
    assert (site / "css" / "main.css").read_text() == "h1{}\n"
    assert {path.owner() for path in (site, *site.rglob("*"))} == {user.name}
    user.run(f"{shlex.quote(command)} rm --all")


def test_the_readmes_program_with_the_sdk_runs_as_it_stands(user: User, wheel: Path) -> None:
    """It runs in the environment that the five commands have made, or that this makes where it runs alone."""
    shutil.copy(wheel, user.home)
    user.run(
        "test -x ~/.taskcell/bin/taskcell || { python3 -m venv ~/.taskcell && ~/.taskcell/bin/pip install *.whl; }"
    )
    program = user.home / "program.py"
    program.write_text(block("python", "stdio_client"))
    program.chmod(0o644)
    printed = user.run('PATH="$HOME/.taskcell/bin:$PATH" python3 program.py')
    assert re.fullmatch(r"hello from [0-9a-zA-Z-]+\n+", printed), printed
