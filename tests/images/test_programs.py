"""What an agent expects of the default image in its first minute works there: as its user, without a network."""

from __future__ import annotations

import base64
import io
import zipfile

import docker
import pytest

from agent_task import Task
from gateways import GatewayFactory
from language_images import LanguageImage, built

pytestmark = [pytest.mark.anyio, pytest.mark.engine]

#: Each with what asks it for its version, or for as little.
PROGRAMS = (
    "bash --version", "bc --version", "bzip2 --help", "cc --version", "column --version", "curl --version",
    "diff --version", "file --version", "find --version", "g++ --version", "gawk --version", "gcc --version",
    "git --version", "hexdump --version", "ip -V", "jq --version", "less --version", "lsof -v", "make --version",
    "nc -h", "openssl version", "patch --version", "pgrep --version", "pip --version", "pip3 --version",
    "pkg-config --version", "ps --version", "pytest --version", "python --version", "python3 --version",
    "python3 -c 'import PIL'", "rg --version", "rsync --version", "scp -V", "sqlite3 --version", "ss -V", "ssh -V",
    "tar --version", "tree --version", "unzip -v", "wget --version", "xxd --version", "xz --version", "zip -v",
    "zstd --version",
)  # fmt: skip


async def output(task: Task, command: str, **arguments: object) -> str:
    """What the command printed; it must succeed."""
    result = await task.terminal(command, **arguments)
    assert result.exit_code == 0, f"{result.status.value} {result.exit_code}: {result.stdout}"
    return result.stdout


async def test_every_program_that_is_promised_is_found_and_starts(task: Task) -> None:
    failed = []
    for line in PROGRAMS:
        result = await task.terminal(line)
        # OpenBSD's nc and OpenSSH's scp answer a question for help or version with their usage, and fail.
        if result.exit_code and "usage:" not in result.stdout:
            failed.append((line, result.exit_code, result.stdout))
    assert failed == []


async def test_a_c_program_is_built_by_make_and_runs(task: Task) -> None:
    source = '#include <math.h>\n#include <stdio.h>\nint main(void) { printf("%.3f\\n", sqrt(2)); return 3; }\n'
    await output(task, "cat > root.c", stdin=source)
    await output(task, "printf 'root: root.o\\n\\t$(CC) $< -lm -o $@\\n' > Makefile")
    assert "cc " in await output(task, "CFLAGS='-O2 -Wall -Werror' make")
    run = await task.terminal("./root")
    assert (run.stdout, run.exit_code) == ("1.414\n", 3)


async def test_a_cpp_program_is_compiled_and_runs(task: Task) -> None:
    source = "#include <iostream>\n#include <map>\nint main() { std::map<int, int> m{{1, 2}}; std::cout << m[1]; }\n"
    assert await output(task, "g++ -std=c++20 -x c++ - -o m && ./m", stdin=source) == "2"


async def test_a_virtual_environment_is_made_offline_with_a_pip_of_its_own(task: Task) -> None:
    await output(task, "python -m venv env && . env/bin/activate")
    assert await output(task, "command -v python pip") == "/workspace/env/bin/python\n/workspace/env/bin/pip\n"
    assert "/workspace/env/lib/" in await output(task, "pip --version")
    assert await output(task, "python -c 'import sys; print(sys.prefix)'") == "/workspace/env\n"


def wheel(name: str) -> bytes:
    """A package for Python with one program, called as itself."""
    info, file = f"{name}-1.0.dist-info", io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(f"{name}.py", "def main():\n    print('installed')\n")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/entry_points.txt", f"[console_scripts]\n{name} = {name}:main\n")
        archive.writestr(f"{info}/RECORD", "")
    return file.getvalue()


async def test_pip_installs_for_the_user_and_the_program_is_found(task: Task) -> None:
    name = "tellme-1.0-py3-none-any.whl"
    await output(task, f"base64 -d > {name}", stdin=base64.b64encode(wheel("tellme")).decode())
    said = await output(task, f"pip install --no-index ./{name}")
    assert "Successfully installed tellme-1.0" in said
    assert "not on PATH" not in said
    assert await output(task, "tellme && command -v tellme") == "installed\n/workspace/.local/bin/tellme\n"


async def test_a_program_in_the_workspace_does_not_take_the_place_of_one_of_the_image(task: Task) -> None:
    await output(task, "mkdir -p .local/bin && cp /bin/false .local/bin/jq && cp /bin/true .local/bin/mine")
    assert await output(task, "command -v jq mine") == "/usr/bin/jq\n/workspace/.local/bin/mine\n"


async def test_a_c_extension_for_python_is_built(task: Task) -> None:
    source = (
        "#include <Python.h>\nstatic struct PyModuleDef def = {PyModuleDef_HEAD_INIT, .m_name = \"fast\"};\n"
        "PyMODINIT_FUNC PyInit_fast(void) { return PyModule_Create(&def); }\n"
    )  # fmt: skip
    await output(task, "cat > fast.c", stdin=source)
    await output(task, "gcc -shared -fPIC $(python3-config --includes) fast.c -o fast.so")
    assert await output(task, "python -c 'import fast; print(fast.__name__)'") == "fast\n"


async def test_tests_are_run_by_pytest(task: Task) -> None:
    await output(task, "cat > test_sum.py", stdin="def test_sum():\n    assert 1 + 1 == 2\n")
    assert "1 passed" in await output(task, "pytest -q test_sum.py")


async def test_git_starts_a_repository_quietly_and_commits(task: Task) -> None:
    assert await output(task, "git init repo") == "Initialized empty Git repository in /workspace/repo/.git/\n"
    await output(task, "cd repo && git config user.name A && git config user.email a@b.c && echo 1 > f && git add f")
    assert "[main (root-commit)" in await output(task, "git commit -m first")
    assert await output(task, "git log --format='%an %s' && git status --short") == "A first\n"


#: A repository that belongs to root.
ROOTS_REPOSITORY = LanguageImage(
    "repository",
    environment={},
    programs={},
    files={
        "/srv/repo/.git/HEAD": "ref: refs/heads/main\n",
        "/srv/repo/.git/objects/x": "",
        "/srv/repo/.git/refs/x": "",
    },
)


async def test_git_works_in_a_repository_that_is_somebody_elses(
    docker_api: docker.APIClient, gateway: GatewayFactory
) -> None:
    with built(docker_api, ROOTS_REPOSITORY) as reference:
        async with gateway(f'[terminal]\nimage = "{reference}"\n') as gw:
            said = await output(Task(gw), "cd /srv/repo && stat -c %U .git && git status --short --branch")
            assert said == "root\n## No commits yet on main\n"


async def test_a_commit_without_a_name_says_at_once_what_to_set(task: Task) -> None:
    result = await task.terminal("git init -q . && git commit --allow-empty -m x")
    assert result.exit_code == 128
    assert "Please tell me who you are" in result.stdout


@pytest.mark.parametrize("command", ["seq 3 | less", "seq 3 > f && less f", "git init -q . && git help -a | less"])
async def test_less_without_a_terminal_prints_and_does_not_wait(task: Task, command: str) -> None:
    await output(task, command, timeout=20)


async def test_files_are_packed_looked_at_and_patched(task: Task) -> None:
    await output(task, "echo one > a && cp a b && echo two >> b && (diff -u a b > p || true) && patch a p && cmp a b")
    await output(task, "zip -q t.zip a b && rm a && unzip -q t.zip a && tar -cJf t.tar.xz a && tar -tf t.tar.xz")
    assert await output(task, "zstd -q a && file -b a.zst t.zip a") == (
        "Zstandard compressed data (v0.8+), Dictionary ID: None\n"
        "Zip archive data, at least v1.0 to extract, compression method=store\nASCII text\n"
    )
    assert await output(task, "xxd a | xxd -r | cmp - a && xxd -p a") == "6f6e650a74776f0a\n"


async def test_processes_and_what_listens_are_seen(task: Task) -> None:
    await output(task, "python -m http.server --bind 127.0.0.1 8000 > log 2>&1 & echo $! > pid")
    await output(task, "curl -s --retry 20 --retry-delay 1 --retry-connrefused -o page http://127.0.0.1:8000/pid")
    number = (await output(task, "cat pid")).strip()
    assert await output(task, "pgrep -f http.server | grep -cx $(cat pid); ps -o comm= -p $(cat pid)") == "1\npython\n"
    assert f"pid={number}" in await output(task, "ss -Hltnp sport = :8000")
    assert await output(task, "lsof -t -iTCP:8000 -sTCP:LISTEN") == f"{number}\n"
    assert await output(task, "cmp page pid && kill $(cat pid)") == ""


async def test_the_programs_run_as_the_agent_who_may_not_write_to_the_system(task: Task) -> None:
    assert await output(task, "id -un; pwd; echo $HOME") == "agent\n/workspace\n/workspace\n"
    refused = await task.terminal("touch /usr/lib/python3/dist-packages/x")
    assert (refused.exit_code, "Read-only file system" in refused.stdout) == (1, True)
