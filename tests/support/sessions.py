"""A session as an agent has it with a project in some language: what it gives to the terminal, and what comes back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from language_images import GOLANG, NVM, RUST, SYSTEM, VENV, LanguageImage

#: Adds two numbers wrongly, or prints 'FAIL' and ends with 1 where it is asked to test itself.
_C = """#include <stdio.h>
static int add(int a, int b) { return a - b; }
int main(int argc, char **argv) {
  (void)argv;
  if (argc > 1 && add(6, 1) != 7) { printf("FAIL: add(6, 1) is %d\\n", add(6, 1)); return 1; }
  puts(argc > 1 ? "PASS" : "ran");
  if (argc == 1) printf("%d\\n", add(6, 1));
  return 0;
}
"""
_PYTHON = """import sys

def add(a, b):
    return a - b

if len(sys.argv) > 1:
    print("PASS" if add(6, 1) == 7 else f"FAIL: add(6, 1) is {add(6, 1)}")
    sys.exit(add(6, 1) != 7)
print("ran")
print(add(6, 1))
"""
_GO = """#!/bin/sh
case $1 in
  version) echo 'go version go1.25.4 linux/amd64' ;;
  build) exec cc -o app main.c ;;
  test) cc -o app main.c && exec ./app test ;;
esac
"""
_CARGO = """#!/bin/sh
case $1 in
  --version) echo 'cargo 1.91.0' ;;
  build) mkdir -p target && exec cc -o target/app main.c ;;
  test) cc -o target/app main.c && { target/app test || exit 101; } ;;
esac
"""
_NODE = """#!/bin/sh
case $1 in --version) echo v24.11.0 ;; *) exec python3 "$@" ;; esac
"""


@dataclass(frozen=True)
class Language:
    """How a project of one language is built, tested and run.

    Arguments:
        program: what the language is known by, its path in the image, and how it says its version.
        source: the program's file.
        failed: exit code of failing tests.
    """

    image: LanguageImage
    program: tuple[str, str, str, str]
    source: str
    build: str
    test: str
    run: str
    failed: int = 1

    @property
    def text(self) -> str:
        return _C if self.source.endswith(".c") else _PYTHON


LANGUAGES = (
    Language(
        LanguageImage("c", {"PATH": SYSTEM, "CC": "gcc"}, {}),
        ("make", "/usr/bin/make", "make --version | head -1", "GNU Make 4.3\n"),
        "main.c", "$CC -Wall -Werror -o app main.c", "$CC -o app main.c && ./app test", "./app",
    ),
    Language(
        VENV,
        ("python", "/opt/venv/bin/python", "python -c 'import sys; print(sys.prefix)'", "/opt/venv\n"),
        "main.py", "python -m py_compile main.py", "python main.py test", "python main.py",
    ),
    Language(
        LanguageImage(GOLANG.name, GOLANG.environment, {"/usr/local/go/bin/go": _GO}),
        ("go", "/usr/local/go/bin/go", "go version", "go version go1.25.4 linux/amd64\n"),
        "main.c", "go build", "go test", "./app",
    ),
    Language(
        LanguageImage(RUST.name, RUST.environment, {"/usr/local/cargo/bin/cargo": _CARGO}),
        ("cargo", "/usr/local/cargo/bin/cargo", "cargo --version", "cargo 1.91.0\n"),
        "main.c", "cargo build", "cargo test", "target/app", 101,
    ),
    Language(
        LanguageImage(NVM.name, NVM.environment, {"/usr/local/nvm/versions/node/v24.11.0/bin/node": _NODE}),
        ("node", "/usr/local/nvm/versions/node/v24.11.0/bin/node", "node --version", "v24.11.0\n"),
        "main.py", "true", "node main.py test", "node main.py",
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Step:
    """One command of a session, and its answer.

    Arguments:
        notes: how many notes the answer has.
        more: further arguments of the call.
    """

    command: str
    stdout: str = ""
    code: int = 0
    workdir: str = "/workspace"
    notes: int = 0
    more: Mapping[str, Any] = field(default_factory=dict)


def session(language: Language) -> Iterator[Step]:
    """A project is cloned, built, tested, mended, committed and served, in some fifty commands."""
    yield from _look_around(language)
    for step in (*_clone(language), *_mend(language), *_shell(), *_environment(), *_serve(), *_odds()):
        yield step if step.workdir != "/workspace" else Step(**{**vars(step), "workdir": "/workspace/proj"})
    yield Step("cd; pwd; echo $TOKEN", "/workspace\nabc\n")


def _look_around(language: Language) -> Iterator[Step]:
    name, path, version, printed = language.program
    yield Step("pwd", "/workspace\n", notes=1)
    yield Step("whoami; id -u; echo $HOME", "agent\n1000\n/workspace\n")
    yield Step("ls -A", "")
    yield Step(f"command -v {name}", f"{path}\n")
    yield Step(version, printed)
    for variable, value in language.image.environment.items():
        if variable != "PATH":
            yield Step(f"echo ${variable}", f"{value}\n")


def _clone(language: Language) -> Iterator[Step]:
    source = language.source
    yield Step(
        "git init -q --bare ~/origin.git && git clone -q ~/origin.git ~/seed && cd ~/seed",
        "warning: You appear to have cloned an empty repository.\n",
        workdir="/workspace/seed",
    )
    yield Step("git config --global user.name Ada; git config --global user.email a@b", workdir="/workspace/seed")
    yield Step(f"cat >{source} <<'EOF'\n{language.text}EOF", workdir="/workspace/seed")
    yield Step("printf 'app\\ntarget/\\n__pycache__/\\nenv/\\n*.log\\n' >.gitignore", workdir="/workspace/seed")
    yield Step("git add -A && git commit -qm 'Add a program' && git push -q", workdir="/workspace/seed")
    yield Step("git log --oneline | wc -l", "1\n", workdir="/workspace/seed")
    yield Step("cd .. && git clone -q origin.git proj && cd proj && pwd", "/workspace/proj\n")
    yield Step("git branch --show-current; git remote -v | head -1", "main\norigin\t/workspace/origin.git (fetch)\n")
    yield Step("ls", f"{source}\n")


def _mend(language: Language) -> Iterator[Step]:
    source = language.source
    yield Step(language.build)
    yield Step(language.run, "ran\n5\n")
    yield Step(language.test, "FAIL: add(6, 1) is 5\n", language.failed)
    yield Step("echo $?", "0\n")
    yield Step(f"grep -c 'a - b' {source}", "1\n")
    yield Step(f"sed -i 's/a - b/a + b/' {source}")
    yield Step("git diff --stat | tail -1", " 1 file changed, 1 insertion(+), 1 deletion(-)\n")
    yield Step("git diff | grep -c '^[-+].*a . b'", "2\n")
    yield Step(language.build)
    yield Step(language.test, "PASS\n")
    yield Step(language.run, "ran\n7\n")
    yield Step("git commit -qam 'Mend the sum'; git log --format=%s", "Mend the sum\nAdd a program\n")
    yield Step("git show", stdout="*")
    yield Step("git push -q && git -C ../origin.git log -1 --format=%s", "Mend the sum\n")
    yield Step("git status --short")


def _shell() -> Iterator[Step]:
    yield Step('export TOKEN=abc GREETING="hello world"')
    yield Step('echo "$TOKEN $GREETING"; env | grep -c ^TOKEN=', "abc hello world\n1\n")
    yield Step("echo $TOKEN $ONCE", "other 1\n", more={"env": {"TOKEN": "other", "ONCE": "1"}})
    yield Step("echo $TOKEN $ONCE", "abc\n")
    yield Step('greet() { echo "hi $1"; }; export -f greet; greet bob', "hi bob\n")
    yield Step("greet eve; bash -c 'greet dan'", "hi eve\nhi dan\n")
    yield Step("unset -f greet")
    yield Step("greet bob 2>/dev/null", code=127)
    yield Step("cat >conf.ini <<'EOF'\n[a]\nhome = $HOME\n'quoted' \"twice\"\nEOF")
    yield Step("cat conf.ini", "[a]\nhome = $HOME\n'quoted' \"twice\"\n")
    yield Step("x=$(wc -l <conf.ini); echo $((x * 2))", "6\n")
    yield Step('for f in *.ini; do echo "${f%.ini}"; done', "conf\n")
    yield Step("seq 3 | while read -r n; do echo n=$n; done", "n=1\nn=2\nn=3\n")
    yield Step("cat", "given\n", more={"stdin": "given\n"})


def _environment() -> Iterator[Step]:
    yield Step(
        "python3 -m venv --without-pip env && . env/bin/activate && command -v python",
        "/workspace/proj/env/bin/python\n",
    )
    yield Step(
        "python -c 'import sys; print(sys.prefix)'; echo $VIRTUAL_ENV", "/workspace/proj/env\n/workspace/proj/env\n"
    )
    yield Step(
        'export PATH=${PATH#"$VIRTUAL_ENV/bin:"}; unset VIRTUAL_ENV; command -v python3 | grep -c proj', "0\n", 1
    )


def _serve() -> Iterator[Step]:
    yield Step("python3 -m http.server 8123 >server.log 2>&1 & echo started", "started\n", notes=1)
    yield Step(
        "curl -sf --retry 50 --retry-delay 0 --retry-connrefused http://127.0.0.1:8123/conf.ini | head -1", "[a]\n"
    )
    yield Step("curl -s -o /dev/null -w '%{http_code}\\n' http://127.0.0.1:8123/none", "404\n")
    yield Step("sed -i 's/a/b/' conf.ini; curl -s http://127.0.0.1:8123/conf.ini | head -1", "[b]\n")
    yield Step("pkill -f http.server; while pgrep -f http.server >/dev/null; do sleep 0.02; done")
    yield Step("curl -s http://127.0.0.1:8123/", code=7)
    yield Step("grep -c '\"GET /conf.ini' server.log", "2\n")


def _odds() -> Iterator[Step]:
    yield Step("cd /tmp && pwd", "/tmp\n", workdir="/tmp")
    yield Step("cd - && echo $OLDPWD", "/workspace/proj\n/tmp\n")
    yield Step("(cd / && pwd); pwd", "/\n/workspace/proj\n")
    yield Step("set -e; false; echo no", code=1)
    yield Step("exit 3", code=3)
    yield Step("kill -TERM $$", code=143, notes=1)
    yield Step("false | true; echo ${PIPESTATUS[0]}", "1\n")
    yield Step("nosuchprogram 2>/dev/null || echo fell", "fell\n")
    yield Step(
        "git stash -qu && git status --short | wc -l && git stash pop -q && git status --short",
        "0\nAlready up to date.\n?? conf.ini\n",
    )
    yield Step("rm conf.ini; git status --short")
