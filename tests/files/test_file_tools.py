"""The file tools on real sandboxes: what they can reach, what they refuse, and what they leave behind."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

import anyio
import docker
import pytest

from gateways import GatewayFactory
from observe import HOST_TIMEOUT, containers, eventually, marker
from taskcell.errors import BadArgument, Denied, FileRefused, SandboxLost, TaskcellError
from taskcell.files.answers import FileAnswer, FileBytes, FileText
from taskcell.files.listings import FolderListing, Found
from taskcell.gateway.gateway import Gateway
from taskcell.model import Status, ToolCall

pytestmark = [pytest.mark.anyio, pytest.mark.engine]

#: Seconds for a cold container and some calls on a busy machine.
PATIENCE = 60.0


class Task:
    """One task of a gateway."""

    def __init__(self, gateway: Gateway, name: str = "t") -> None:
        self.gateway = gateway
        self.name = name

    async def call(self, tool: str, **arguments: Any) -> FileAnswer:
        with anyio.fail_after(PATIENCE):
            report = await self.gateway.call(ToolCall("local", tool, {**arguments, "task_id": self.name}))
        return report.answer

    async def shell(self, line: str) -> str:
        with anyio.fail_after(PATIENCE):
            result = await self.gateway.call(ToolCall("local", "terminal", {"command": line, "task_id": self.name}))
        assert result.status is Status.EXITED, result
        assert result.exit_code == 0, result
        return result.stdout

    async def text(self, path: str, **arguments: Any) -> str:
        answer = await self.call("read_file", path=path, **arguments)
        assert isinstance(answer, FileText)
        return answer.text

    async def refused(self, tool: str, **arguments: Any) -> str:
        with pytest.raises(FileRefused) as caught:
            await self.call(tool, **arguments)
        return str(caught.value)

    async def names(self, path: str = ".", **arguments: Any) -> list[str]:
        answer = await self.call("list_files", path=path, **arguments)
        assert isinstance(answer, FolderListing)
        return [entry.path for entry in answer.entries]


async def test_files_are_written_read_changed_and_listed_as_the_sandboxs_user(gateway: GatewayFactory) -> None:
    async with gateway() as gw:
        task = Task(gw)
        made = await task.call("write_file", path="src/a.py", content="x = 1\ny = 2\n")
        assert made.remark() == "Created '/workspace/src/a.py': 12 bytes"
        assert await task.shell("stat -c '%U %a' src/a.py src; cat src/a.py") == "agent 644\nagent 755\nx = 1\ny = 2\n"
        edited = await task.call("edit_file", path="/workspace/src/a.py", old="y = 2", new="y = 3")
        assert (edited.output(), edited.remark()) == (
            "1\tx = 1\n2\ty = 3\n", "Changed 1 place in '/workspace/src/a.py', at line 2"
        )  # fmt: skip
        assert await task.text("src/a.py") == "x = 1\ny = 3\n"
        assert await task.names(glob="**/*.py") == ["src/a.py"]
        await task.call("write_file", path="empty", content="")
        await task.call("edit_file", path="src/a.py", old="x = 1\n", new="")
        assert await task.shell("wc -c < empty; wc -c < src/a.py") == "0\n6\n"
        await task.shell("echo made by the terminal > b")
        assert await task.text("b") == "made by the terminal\n"


async def test_paths_start_in_the_workspace_and_the_terminals_state_is_its_own(gateway: GatewayFactory) -> None:
    async with gateway() as gw:
        task = Task(gw)
        await task.shell("cd /tmp; export PATH=/nowhere LD_PRELOAD=/nowhere HOME=/tmp")
        await task.call("write_file", path="a", content="here")
        await task.call("write_file", path="/tmp/b", content="there")
        assert await task.text("a") == "here"
        result = await gw.call(
            ToolCall("local", "terminal", {"command": "unset LD_PRELOAD; pwd; echo *", "task_id": "t"})
        )
        assert result.stdout.splitlines()[-2:] == ["/tmp", "b"]


async def test_no_link_leads_out_of_the_sandbox(gateway: GatewayFactory, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("the host's")
    secret.chmod(0o644)
    async with gateway() as gw:
        task = Task(gw)
        await task.shell(
            f"ln -s {secret} host; ln -s /etc/shadow shadow; ln -s /etc/hostname name; ln -s / root;"
            "ln -s /proc/1 init; ln -s /.taskcell/supervisor program"
        )
        for path in ("host", str(secret), f"root{secret}", f"/proc/self/root{secret}", f"../../../..{secret}"):
            assert "There is no" in await task.refused("read_file", path=path)
        for path in ("shadow", "/etc/shadow", "init/environ", "init/root/etc/passwd", "/proc/1/mem"):
            assert "no permission" in await task.refused("read_file", path=path)
        assert (await task.text("name")).strip() == (await task.shell("cat /etc/hostname")).strip()
        for path in ("name", "program", "root/etc/x", "/etc/passwd", "/.taskcell/supervisor", "/.taskcell/x"):
            refused = await task.refused("write_file", path=path, content="x")
            assert "no permission" in refused or "read-only" in refused
        assert "There is no" in await task.refused("list_files", path=str(tmp_path))
        assert "no permission" in await task.refused("list_files", path="init/fd")
    assert secret.read_text() == "the host's"


async def test_another_tasks_files_are_not_there(gateway: GatewayFactory) -> None:
    async with gateway() as gw:
        await Task(gw, "one").call("write_file", path="a", content="one's")
        assert await Task(gw, "two").names() == []
        assert "There is no" in await Task(gw, "two").refused("read_file", path="a")


async def test_what_has_no_end_or_no_data_is_refused_at_once(gateway: GatewayFactory) -> None:
    async with gateway() as gw:
        task = Task(gw)
        await task.shell("mkfifo fifo; ln -s /dev/zero zero; python3 -c 'import socket; socket.socket(1).bind(\"s\")'")
        for path, what in (("fifo", "a FIFO"), ("zero", "a device"), ("s", "a socket"), ("/dev/ptmx", "a device")):
            assert what in await task.refused("read_file", path=path)
            assert what in await task.refused("write_file", path=path, content="x")
            assert what in await task.refused("search", path=path, pattern="x")
        await task.shell("echo word > a")
        beside = await task.call("search", pattern="word")
        assert (beside.output(), beside.notes) == ("a\n1:word\n", ())
        for path in ("/proc/self/mem", "/proc/kmsg", "/proc/self/pagemap"):
            with pytest.raises(FileRefused):
                await task.call("read_file", path=path)
        assert "MemTotal" in await task.text("/proc/meminfo")


async def test_protected_files_and_folders_stay_as_they_are(gateway: GatewayFactory) -> None:
    async with gateway() as gw:
        task = Task(gw)
        await task.shell("mkdir closed hidden; echo 1 > closed/f; echo 1 > ro; echo 1 > none; chmod 555 closed")
        await task.shell("chmod 444 ro; chmod 000 none hidden")
        for path in ("closed/new", "ro", "none", "hidden/x"):
            assert "no permission" in await task.refused("write_file", path=path, content="2")
        for path in ("ro", "none"):
            assert "no permission" in await task.refused("edit_file", path=path, old="1", new="2")
        assert "no permission" in await task.refused("read_file", path="none")
        listing = await task.call("list_files", path=".", glob="**")
        assert isinstance(listing, FolderListing)
        assert [entry.path for entry in listing.entries] == ["closed", "closed/f", "hidden", "none", "ro"]
        assert "may not read some of the folders" in listing.notes[0]
        assert await task.shell("cat closed/f ro; ls -A closed") == "1\n1\nf\n"


async def test_a_full_workspace_keeps_the_old_file_and_leaves_nothing_behind(gateway: GatewayFactory) -> None:
    async with gateway('[workspace]\nsize = "1m"\n') as gw:
        task = Task(gw)
        await task.call("write_file", path="a", content="old " * 1000)
        assert "no space left" in await task.refused("write_file", path="a", content="x" * (2 << 20))
        assert "no space left" in await task.refused("edit_file", path="a", old="old", new="n" * 2000, count=1000)
        assert await task.shell("ls -A; wc -c < a") == "a\n4000\n"
        await task.call("write_file", path="b", content="x" * 500_000)


async def test_a_file_that_is_larger_than_the_sandboxs_memory_is_read_in_its_middle(gateway: GatewayFactory) -> None:
    toml = '[terminal]\nmemory = "192m"\n[workspace]\nsize = "64m"\n'
    async with gateway(toml) as gw:
        task = Task(gw)
        await task.shell("truncate -s 40M zeros; yes 'a line of some text' | head -c 40000000 > text")
        assert await task.text("text", offset=1_999_999, limit=1) == "a line of some text\n"
        assert "too large" in await task.refused("edit_file", path="text", old="b", new="c")
        assert "binary" in await task.refused("read_file", path="zeros")


async def test_a_picture_is_answered_whole(gateway: GatewayFactory) -> None:
    draw = """python3 - <<'END'
import struct, zlib
part = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
rows = zlib.compress(b"\\0\\xff\\0\\0")
head = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
open("red", "wb").write(b"\\x89PNG\\r\\n\\x1a\\n" + part(b"IHDR", head) + part(b"IDAT", rows) + part(b"IEND", b""))
END"""
    async with gateway() as gw:
        task = Task(gw)
        await task.shell(draw)
        answer = await task.call("read_file", path="red")
        assert isinstance(answer, FileBytes)
        assert answer.mime == "image/png"
        assert len(answer.data) == int(await task.shell("stat -c %s red"))
        # Too many bytes to show, though one pixel: what is shown has the pixel alone.
        await task.shell("head -c 6000000 /dev/zero >> red")
        answer = await task.call("read_file", path="red")
        assert isinstance(answer, FileBytes)
        assert (answer.mime, len(answer.data) < 1000) == ("image/png", True)
        assert answer.notes[0].startswith("The file is 1x1 pixels and 60000")


async def test_a_cancelled_edit_is_killed_and_changes_nothing(
    gateway: GatewayFactory, docker_api: docker.APIClient
) -> None:
    toml = f'deployment = "{marker()}"\n'
    async with gateway(toml) as gw:
        task = Task(gw)
        await task.shell("echo old > a; flock a sleep 60 > /dev/null 2>&1 & while flock -n a true; do :; done")
        (container,) = containers(docker_api, taskcell__deployment=tomllib.loads(toml)["deployment"])

        def editing() -> bool:
            rows = docker_api.top(container, "-eo pid,args")["Processes"] or []
            return any(" file write " in row[-1] for row in rows)

        async with anyio.create_task_group() as group:
            group.start_soon(lambda: task.call("edit_file", path="a", old="old", new="new"))
            assert await anyio.to_thread.run_sync(lambda: eventually(editing))
            group.cancel_scope.cancel()
        assert await anyio.to_thread.run_sync(lambda: eventually(lambda: not editing()))
        assert await task.shell("cat a") == "old\n"


async def test_a_sandbox_that_dies_under_a_file_tool_is_said_and_the_next_call_has_a_new_one(
    gateway: GatewayFactory, docker_api: docker.APIClient
) -> None:
    toml = f'deployment = "{marker()}"\n'
    async with gateway(toml) as gw:
        task = Task(gw)
        await task.shell("echo old > a; flock a sleep 60 > /dev/null 2>&1 & while flock -n a true; do :; done")
        (container,) = containers(docker_api, taskcell__deployment=tomllib.loads(toml)["deployment"])
        failed: list[TaskcellError] = []

        async def edit() -> None:
            try:
                await task.call("edit_file", path="a", old="old", new="new")
            except TaskcellError as error:
                failed.append(error)

        async with anyio.create_task_group() as group:
            group.start_soon(edit)
            await anyio.to_thread.run_sync(lambda: docker_api.kill(container))
        assert [type(error) for error in failed] == [SandboxLost]
        with anyio.fail_after(PATIENCE):
            report = await gw.call(ToolCall("local", "write_file", {"path": "a", "content": "new", "task_id": "t"}))
        assert report.notes
        assert report.notes[0] in report.said()
        assert await task.text("a") == "new"


async def test_rules_judge_the_one_absolute_spelling_of_a_path(gateway: GatewayFactory) -> None:
    toml = """
[[policy.rules]]
name = "no-git"
tool = "*_file"
command = '^/workspace/\\.git(/|$)'
effect = "deny"
reason = "The history is not to be touched."
"""
    async with gateway(toml) as gw:
        task = Task(gw)
        for path in (".git/config", "/workspace/.git/config", "a/../.git//config", "./.git", "/tmp/../workspace/.git"):
            with pytest.raises(Denied, match="no-git"):
                await task.call("write_file", path=path, content="x")
            with pytest.raises(Denied, match="no-git"):
                await task.call("read_file", path=path)
        await task.call("write_file", path=".gitignore", content="x")
        assert await task.names() == [".gitignore"]


async def test_a_file_tool_is_no_way_to_run_something(gateway: GatewayFactory) -> None:
    async with gateway() as gw:
        with pytest.raises(FileRefused, match="There is no"):
            await gw.call(ToolCall("local", "read_file", {"path": "x; touch /workspace/y"}))
        with pytest.raises(BadArgument, match="has no argument 'command'"):
            await gw.call(ToolCall("local", "read_file", {"command": "touch /workspace/y"}))
        assert await Task(gw).names() == []


async def test_a_replaced_sandbox_keeps_what_the_file_tools_wrote(gateway: GatewayFactory) -> None:
    async with gateway() as gw:
        task = Task(gw)
        await task.call("write_file", path="a", content="kept")
        with anyio.fail_after(3 * HOST_TIMEOUT):
            await gw.call(ToolCall("local", "sandbox", {"action": "reset", "task_id": "t"}))
        assert await task.text("a") == "kept"


async def test_lines_are_found_in_the_files_of_the_sandbox_and_what_is_not_wanted_is_left_out(
    gateway: GatewayFactory,
) -> None:
    async with gateway() as gw:
        task = Task(gw)
        await task.shell("mkdir -p src node_modules/x .git")
        await task.shell("printf 'def total():\\r\\n    return 1  # -v\\r\\n' > src/app.py")
        await task.shell("echo total | tee node_modules/x/a .git/b ignored .hidden; printf 'total\\0' > binary")
        await task.shell("echo ignored > .gitignore; echo 'Total 1' > notes.txt; ln -s /etc/passwd link")

        async def found(**arguments: Any) -> str:
            answer = await task.call("search", **arguments)
            assert isinstance(answer, Found)
            return f"{answer.output()}[{answer.remark()}]"

        assert await found(pattern="tot.l") == (".hidden\n1:total\nsrc/app.py\n1:def total():\n[2 lines in 2 files]")
        assert await found(pattern="total", ignore_case=True, names=True, glob="*.{py,txt}") == (
            "notes.txt\nsrc/app.py\n[2 files]"
        )
        assert await found(pattern="()", literal=True, path="src", context=1) == (
            "src/app.py\n1:def total():\n2-    return 1  # -v\n[1 line in 1 file]"
        )
        assert await found(pattern="-v", path="/workspace/src/app.py") == (
            "src/app.py\n2:    return 1  # -v\n[1 line in 1 file]"
        )
        await task.shell("printf 'one(\\n  two\\n' > two_lines")
        assert await found(pattern=r"one\(\n  two", path="two_lines") == (
            "two_lines\n1:one(\n2:  two\n[2 lines in 1 file]"
        )
        everything = await found(pattern="total", all=True, names=True)
        assert {"ignored", "node_modules/x/a", ".git/b"} <= set(everything.split())
        assert await found(pattern="nowhere at all") == "[Nothing found]"
        assert "There is no '/workspace/missing'" in await task.refused("search", pattern="x", path="missing")
        assert "regex parse error" in await task.refused("search", pattern="(")
        await task.shell("yes 'a line that is found' | head -n 300000 > many")
        many = await task.call("search", pattern="found", path="many")
        assert isinstance(many, Found)
        assert many.truncated
        assert len(many.output()) <= 50_000


async def test_a_glob_of_a_search_is_read_from_the_folder_that_is_searched(gateway: GatewayFactory) -> None:
    async with gateway() as gw:
        task = Task(gw)
        await task.shell("mkdir -p p/src/deep; echo word | tee p/src/a.js p/src/deep/b.js p/c.js > d.js")
        for path, glob, files in (
            ("p", "src/*.js", "p/src/a.js\n"),
            ("p", "./src/*.js", "p/src/a.js\n"),
            ("p", "/workspace/p/src/*.js", "p/src/a.js\n"),
            ("/workspace/p", "src/**/*.js", "p/src/a.js\np/src/deep/b.js\n"),
            ("p", "!src/**", "p/c.js\n"),
            (".", "p/src/*.js", "p/src/a.js\n"),
            (".", "./d.js", "d.js\n"),
            (".", "/d.js", "d.js\n"),
            (".", "*.{js,ts}", "d.js\np/c.js\np/src/a.js\np/src/deep/b.js\n"),
        ):
            answer = await task.call("search", pattern="word", path=path, glob=glob, names=True)
            assert isinstance(answer, Found)
            assert (glob, answer.output()) == (glob, files)


async def test_a_search_says_what_it_could_not_look_into_and_whose_line_it_shows(gateway: GatewayFactory) -> None:
    async with gateway() as gw:
        task = Task(gw)
        await task.shell("mkdir -p odd closed; echo word > $'odd/a\\nb'; echo word > $'odd/a\\n--\\n'; echo x > odd/b")
        await task.shell("chmod 0 closed; printf 'word\\0' > binary")
        await task.shell("(echo word; yes no | head -n 99999; printf 'word\\0') > late")

        async def found(pattern: str, **arguments: Any) -> tuple[str, tuple[str, ...]]:
            answer = await task.call("search", pattern=pattern, **arguments)
            assert isinstance(answer, Found)
            return f"{answer.output()}[{answer.remark()}]", answer.notes

        odd = "'odd/a\\n--\\n'\n1:word\n'odd/a\\nb'\n1:word\n[2 lines in 2 files]"
        assert await found("word", path="odd", context=1) == (odd.replace("'odd/a\\nb", "--\n'odd/a\\nb"), ())
        assert await found("word", path="odd") == (odd, ())
        text, (note,) = await found("word", path="late")
        assert text == "late\n1:word\n[1 line in 1 file]"
        assert note.startswith("Binary data, so what matches there is not shown: late; ")
        text, (note,) = await found("word", path="binary")
        assert (text, "not shown: binary;" in note) == ("[1 file]", True)
        text, (note,) = await found("nowhere at all")
        assert (text, note.startswith("Not everything could be searched: ./closed: ")) == ("[Nothing found]", True)
        _, notes = await found("nowhere at all", path="/proc/1")
        assert notes
        assert "'/workspace/closed' cannot be searched: Permission denied." in await task.refused(
            "search", pattern="word", path="closed"
        )
        assert (await task.refused("search", pattern="word", glob="[")).endswith("; mend 'glob'.")
        everywhere = await task.call("search", pattern=".", path="/usr")
        assert isinstance(everywhere, Found)
        assert (everywhere.truncated, everywhere.notes) == (True, ())
        assert everywhere.remark().startswith("At least ")
        await task.shell("printf 'caf\\351\\n' > menu")
        _, (note,) = await found("café", path="menu")
        assert "rg --encoding=latin-1" in note
        assert "--pcre2" not in await task.refused("search", pattern="(?=word)")


async def test_a_file_of_a_closed_folder_or_with_other_names_is_written_in_place(gateway: GatewayFactory) -> None:
    async with gateway() as gw:
        task = Task(gw)
        await task.shell("mkdir closed; echo old > closed/f; chmod 555 closed; echo old > a; ln a b")
        for path, why in (("closed/f", "folder cannot be written"), ("a", "hard links")):
            edited = await task.call("edit_file", path=path, old="old", new="new")
            assert why in edited.notes[0]
        assert await task.shell("cat closed/f a b; stat -c %a closed/f") == "new\nnew\nnew\n644\n"
        assert await task.refused("write_file", path="closed/new", content="x")


async def test_a_file_that_is_a_mount_of_its_own_is_written_in_place(gateway: GatewayFactory, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    for name in ("open", "closed"):
        (tmp_path / name).write_text("old and longer\n")
        (tmp_path / name).chmod(0o666)
    if os.geteuid() == 0:
        os.chown(tmp_path / "open", 1000, 1000)
    volumes = f'volumes = ["{tmp_path}/open:/mnt/open", "{tmp_path}/closed:/mnt/closed:ro"]'
    async with gateway(f'[terminal]\n{volumes}\n[policy]\nallowed_mount_roots = ["{tmp_path}"]\n') as gw:
        task = Task(gw)
        edited = await task.call("edit_file", path="/mnt/open", old="old and longer", new="new")
        assert edited.notes[0].endswith("so it was written in place.")
        await task.call("write_file", path="/mnt/open", content="more\n", append=True)
        assert await task.text("/mnt/open") == "new\nmore\n"
        await task.call("edit_file", path="/mnt/open", old="more\n", new="")
        await task.call("edit_file", path="/mnt/open", undo=True)
        assert "read-only" in await task.refused("edit_file", path="/mnt/closed", old="old", new="new")
    assert ((tmp_path / "open").read_text(), (tmp_path / "closed").read_text()) == ("new\nmore\n", "old and longer\n")
