"""The notes that save a turn: given when they are right, and only then."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_task import Task
from gateways import GatewayFactory
from taskcell.model import Profile
from taskcell.sandbox.hints import TAIL, Outcome, hints

TERMINAL = Profile("terminal", "taskcell/base:latest", "terminal")
NO_NETWORK = "This sandbox has no network: nothing can be fetched, and trying again does not help."
NO_PACKAGES = "This sandbox has neither root nor network, so packages of the system cannot be installed in it."


KEPT = (
    "'{}' was defined for an earlier command only; to keep functions, define them in a file and export BASH_ENV with "
    "its path."
)


def told(text: str, output: str, code: int | None = 1, profile: Profile = TERMINAL, **more: object) -> list[str]:
    given = {"errors": "", "isolated": True, "elsewhere": knows({}), **more}
    return hints(Outcome(profile, text, code, output, **given))


def knows(tools: Mapping[str, Sequence[str]]) -> object:
    return lambda name, image: tools.get(name, ())


#: What each program printed in a sandbox without a network, or what its sources say that it prints: command, output,
#: exit code. What Debian's programs say was recorded there.
CUT_OFF = (
    ("curl -sS https://example.org/", "curl: (6) Could not resolve host: example.org", 6),
    ("curl https://10.1.2.3/", "curl: (7) Failed to connect to 10.1.2.3 port 443 after 0 ms: Couldn't", 7),
    ("wget https://example.org/", "wget: unable to resolve host address \u2018example.org\u2019", 4),
    ("wget http://10.1.2.3/", "Connecting to 10.1.2.3:80... failed: Network is unreachable.", 4),
    ("wget http://example.org", "wget: bad address 'example.org'", 1),
    ("git clone https://h.example/x.git", "fatal: unable to access 'https://h.example/x.git/': Could not resolve "
     "host: h.example", 128),
    ("git clone git@h.example:x.git", "ssh: Could not resolve hostname h.example: Temporary failure in name "
     "resolution\nfatal: Could not read from remote repository.", 128),
    ("git fetch", "fatal: unable to look up h.example (port 9418) (Temporary failure in name resolution)", 128),
    ("pip install x", "WARNING: Retrying (Retry(total=0)) after connection broken by "
     "'NewConnectionError('<object>: Failed to establish a new connection: [Errno -3] Temporary failure in name "
     "resolution')': /simple/x/\nERROR: No matching distribution found for x", 1),
    ("pip install x 2>&1 | tail -1", "ERROR: No matching distribution found for x", 0),
    ("cd app && pip install -r requirements.txt | tail -3", "ERROR: Could not find a version that satisfies the "
     "requirement x (from versions: none)", 0),
    ("ssh h.example", "ssh: Could not resolve hostname h.example: Temporary failure in name resolution", 255),
    ("ssh 10.1.2.3", "ssh: connect to host 10.1.2.3 port 22: Network is unreachable", 255),
    ("nc -z h.example 80", 'nc: getaddrinfo for host "h.example" port 80: Temporary failure in name resolution', 1),
    ("sudo apt-get update", "Err:1 http://h.example bookworm InRelease\n  Temporary failure resolving "
     "'h.example'", 100),
    ("python fetch.py", "urllib.error.URLError: <urlopen error [Errno -3] Temporary failure in name resolution>", 1),
    ("python fetch.py", "socket.gaierror: [Errno -3] Try again", 1),
    ("make deps", "OSError: [Errno 101] Network is unreachable", 2),
    ("npm ci", "npm error code EAI_AGAIN\nnpm error request to https://h.example/x failed, reason: getaddrinfo "
     "EAI_AGAIN h.example", 1),
    ("node x.js", "Error: connect ENETUNREACH 10.1.2.3:443 - Local (0.0.0.0:0)", 1),
    ("go mod download", 'go: x: Get "https://h.example/x": dial tcp: lookup h.example on [::1]:53: read udp '
     "[::1]:1->[::1]:53: read: connection refused", 1),
    ("cargo build", "warning: spurious network error (3 tries remaining): [6] Could not resolve hostname (Could not "
     "resolve host: index.h.example)", 101),
    ("uv sync", "dns error: failed to lookup address information: Temporary failure in name resolution", 2),
    ("mvn package", "Unknown host: java.net.UnknownHostException: h.example", 1),
    ("curl -s https://h.example/a.json", "", 6),
    ("wget -q https://h.example/a.tar.gz && tar xf a.tar.gz", "", 4),
    ("curl -s https://h.example/a.json | jq .", "", 0),
    ("npm install", "npm http fetch GET https://h.example/x attempt 1 failed with EAI_AGAIN", None),
)  # fmt: skip


@pytest.mark.parametrize(("text", "output", "code"), CUT_OFF)
def test_a_command_that_fails_for_want_of_a_network_is_told_so(text: str, output: str, code: int | None) -> None:
    assert told(text, output, code) == [NO_NETWORK]


@pytest.mark.parametrize(("text", "output", "code"), CUT_OFF)
def test_nobody_is_told_so_where_there_is_a_network(text: str, output: str, code: int | None) -> None:
    assert told(text, output, code, replace(TERMINAL, network="bridge")) == []
    assert told(text, output, code, isolated=False) == []


NOT_CUT_OFF = (
    ("curl http://127.0.0.1:8000/", "curl: (7) Failed to connect to 127.0.0.1 port 8000 after 0 ms: Couldn't", 7),
    ("curl http://localhost:8000/", "curl: (7) Failed to connect to localhost port 8000 after 0 ms: Couldn't", 7),
    ("curl -s http://localhost:8000/", "", 7),
    ("curl -s http://127.0.0.1/ | jq .", "", 0),
    ("wget http://127.0.0.1:9/", "Connecting to 127.0.0.1:9... failed: Connection refused.", 4),
    ("curl --unix-socket /tmp/s http://h.example/", "", 7),
    ("python app.py", "ConnectionRefusedError: [Errno 111] Connection refused", 1),
    ("pip install --no-index --find-links wheels x", "ERROR: No matching distribution found for x", 1),
    ("pip install -i http://127.0.0.1:3141/ x", "ERROR: No matching distribution found for x", 1),
    ("sudo id", "sudo: unable to resolve host 3f2a: Temporary failure in name resolution\nsudo: a password is "
     "required", 1),
    ("hostname -f", "hostname: Temporary failure in name resolution", 1),
    ("grep -rn 'Could not resolve host' logs | head", "logs/a: Could not resolve host: h.example", 0),
    ("cat build.log", "curl: (6) Could not resolve host: example.org", 0),
    ("cat >get.sh <<'EOF'\ncurl -s https://h.example/\nEOF", "", 0),
    ("echo 'curl https://h.example/' >get.sh; chmod +x get.sh", "", 0),
    ("git status; git diff | cat", "", 0),
    ("false", "", 1),
    ("pytest -q", "E   AssertionError: expected a host name\n1 failed", 1),
    ("git push ../bare.git", "fatal: '../bare.git' does not appear to be a git repository", 128),
    ("python -m pytest | tail -5", "3 passed", 0),
)  # fmt: skip


@pytest.mark.parametrize(("text", "output", "code"), NOT_CUT_OFF)
def test_a_command_that_fails_for_another_reason_is_not_told_of_the_network(text: str, output: str, code: int) -> None:
    assert told(text, output, code) == []


#: What Debian's go and cargo say where the image's folders are read-only; the command, its output, its variable.
READ_ONLY = (
    ("go install . && calc", "go install a/calc: copying /tmp/go-build8/b001/exe/a.out: open /go/bin/calc: read-only "
     "file system", "GOPATH"),
    ("go mod download", "go: could not create module cache: mkdir /go/pkg: read-only file system", "GOPATH"),
    ("cargo install --path .", "error: failed to open: /usr/local/cargo/.crates.toml\n\nCaused by:\n  Read-only file "
     "system (os error 30)", "CARGO_HOME"),
)  # fmt: skip


@pytest.mark.parametrize(
    ("text", "output", "variable"),
    [
        (
            "mvn -q validate",
            "Unknown host x.test: Temporary failure in name resolution",
            "JAVA_TOOL_",
        ),
        (
            "mvn -q compile",
            f"[ERROR] {'Failed to read. ' * 60}: Unknown host x.test: Temporary failure in name resolution",
            "JAVA_TOOL_",
        ),
        ("./run", 'Exception in thread "main" java.net.UnknownHostException: files.test', "JAVA_TOOL_OPTIONS="),
        ("node fetch.js", "cause: Error: getaddrinfo EAI_AGAIN files.test", "NODE_USE_ENV_PROXY=1"),
        ("./fetch", "dial tcp: lookup files.test on 127.0.0.11:53: no such host", "$https_proxy"),
    ],
)
def test_a_program_that_does_not_use_the_proxy_is_told_the_variable_that_makes_it_do_so(
    text: str, output: str, variable: str
) -> None:
    [note] = told(text, output, proxied=True)
    assert "this program did not use it" in note
    assert variable in note


@pytest.mark.parametrize(("text", "output", "variable"), READ_ONLY)
def test_a_tool_whose_folder_is_the_images_is_given_the_variable_that_moves_it(
    text: str, output: str, variable: str
) -> None:
    note = f"The image's folders are read-only here: run `export {variable}=/workspace/.{variable.lower()}`, then the "
    assert told(text, output) == [f"{note}command again."]
    assert told(f"{text} 2>&1 | tail", output, 0) == [f"{note}command again."]
    assert told(text, output, exported=[variable]) == []
    assert told(text, output, profile=replace(TERMINAL, read_only=False)) == []
    assert told(text, output, isolated=False) == []
    assert told("./build.sh", output) == []
    assert told(text, "error: no such file") == []


def test_cargo_is_told_of_the_network_before_it_is_told_of_its_folder() -> None:
    said = (
        "error: failed to load source for dependency `x`\n\nCaused by:\n  Unable to update registry `crates-io`\n\n"
        "Caused by:\n  failed to create directory `/usr/local/cargo/registry/index/h.example-1ecc`\n\n"
        "Caused by:\n  Read-only file system (os error 30)"
    )
    assert told("cargo add x", said, 101) == [NO_NETWORK]
    (note,) = told("cargo add x", said, 101, replace(TERMINAL, network="bridge"))
    assert "export CARGO_HOME=" in note


NO_ROOT = (
    "E: Could not open lock file /var/lib/dpkg/lock-frontend - open (13: Permission denied)\n"
    "E: Unable to acquire the dpkg frontend lock (/var/lib/dpkg/lock-frontend), are you root?",
    "E: List directory /var/lib/apt/lists/partial is missing. - Acquire (13: Permission denied)",
    "Reading package lists...\nE: Unable to lock directory /var/lib/apt/lists/",
    "dpkg: error: requested operation requires superuser privilege",
    "ERROR: Unable to lock database: Permission denied\nERROR: Failed to open apk database: Permission denied",
    "Error: This command has to be run with superuser privileges (under the root user on most systems).",
)


@pytest.mark.parametrize("output", NO_ROOT)
def test_a_package_manager_without_root_is_told_what_the_sandbox_lacks(output: str) -> None:
    assert told("apt-get install -y nano", output, 100) == [NO_PACKAGES]
    assert told("apt-get update && apt-get install -y nano 2>&1 | tail -2", output, 0) == [NO_PACKAGES]
    networked = replace(TERMINAL, network="bridge")
    assert told("apt-get install -y nano", output, 100, networked) == [
        "This sandbox has no root, so packages of the system cannot be installed in it."
    ]
    assert told("apt-get install -y nano", output, 100, replace(networked, sudo=True)) == []


#: How programs say that `ffmpeg` is not there; the command, its output, its exit code.
NOT_FOUND = (
    ("ffmpeg -i a b", "bash: line 1: ffmpeg: command not found", 127),
    ("./make.sh", "./make.sh: line 3: ffmpeg: command not found", 127),
    ("sh make.sh", "make.sh: 3: ffmpeg: not found", 127),
    ("sh -c ffmpeg", "sh: ffmpeg: not found", 127),
    ("env ffmpeg", "env: \u2018ffmpeg\u2019: No such file or directory", 127),
    ("./convert", "/usr/bin/env: 'ffmpeg': No such file or directory", 127),
    ("timeout 5 ffmpeg", "timeout: failed to run command \u2018ffmpeg\u2019: No such file or directory", 127),
    ("nohup ffmpeg", "nohup: failed to run command 'ffmpeg': No such file or directory", 127),
    ("make film", "make: ffmpeg: No such file or directory\nmake: *** [Makefile:2: film] Error 127", 2),
    ("xargs ffmpeg", "xargs: ffmpeg: No such file or directory", 127),
    ("python cut.py", "FileNotFoundError: [Errno 2] No such file or directory: 'ffmpeg'", 1),
    ("node cut.js", "Error: spawn ffmpeg ENOENT", 1),
    ("type ffmpeg", "bash: line 1: type: ffmpeg: not found", 1),
    ("which ffmpeg", "", 1),
    ("command -v ffmpeg", "", 1),
    ("cd x && which ffmpeg jq", "/usr/bin/jq", 1),
    ("python cut.py", "ModuleNotFoundError: No module named 'ffmpeg'", 1),
)


@pytest.mark.parametrize(("text", "output", "code"), NOT_FOUND)
def test_a_program_that_another_tools_image_has_is_told_with_the_tool(text: str, output: str, code: int) -> None:
    tools = knows({"ffmpeg": ["ffmpeg_probe", "ffmpeg_trim"]})
    assert told(text, output, code, elsewhere=tools) == [
        "'ffmpeg' was not found here; the tools `ffmpeg_probe`, `ffmpeg_trim` have it, for the same files."
    ]
    assert told(text, output, code) == []


@pytest.mark.parametrize(
    ("text", "output", "code"),
    [
        ("ffmpeg -i a b", "a: No such file or directory", 1),
        ("which ffmpeg", "/usr/bin/ffmpeg", 0),
        ("which ffmpeg >/dev/null && false", "", 1),
        ("which ffmpeg | grep -c proj", "0", 1),
        ("which ffmpeg; false", "/usr/bin/other", 1),
        ("which ffmpeg && grep -q x y", "", 1),
        ("command -v ffmpeg 2>&1 >/dev/null; exit 1", "", 1),
        ("echo 'bash: ffmpeg: command not found'; true", "bash: ffmpeg: command not found", 0),
        ("cat ffmpeg", "cat: ffmpeg: No such file or directory", 1),
        ("./ffmpeg", "bash: line 1: ./ffmpeg: No such file or directory", 127),
        ("make ffmpeg", "make: *** No rule to make target 'ffmpeg'.  Stop.", 2),
        ("make", "cc: error: ffmpeg: No such file or directory", 2),
        ("python x.py", "ModuleNotFoundError: No module named 'app.ffmpeg'", 1),
        ("python x.py", "ModuleNotFoundError: No module named 'ffmpeg.x'; 'ffmpeg' is not a package", 1),
    ],
)
def test_other_mentions_of_a_program_name_no_tool(text: str, output: str, code: int) -> None:
    assert told(text, output, code, elsewhere=knows({"ffmpeg": ["ffmpeg_probe"]})) == []


def test_a_function_of_an_earlier_command_is_told_how_functions_are_kept() -> None:
    gone = "bash: line 1: {}: command not found"
    for earlier in ("f() { echo; }", "cd x; function f { echo; }", "true && f () (echo)", "shopt -x; alias f='ls'"):
        assert told("f", gone.format("f"), 127, earlier=[earlier]) == [KEPT.format("f")]
    assert told("deactivate", gone.format("deactivate"), 127, exported={"VIRTUAL_ENV"}) == [KEPT.format("deactivate")]
    for earlier in ("echo f", "ff() { echo; }", "f", "./f --help", "alias g=f", "cat <<X\nf() { x; }\nX"):
        assert told("f", gone.format("f"), 127, earlier=[earlier]) == []
    assert told("deactivate", gone.format("deactivate"), 127, exported={"PATH"}) == []


def test_at_most_four_tools_are_named_and_one_program() -> None:
    tools = knows({"a": [f"a_{number}" for number in range(6)], "b": ["b_1"]})
    output = "bash: line 1: a: command not found\nbash: line 2: b: command not found"
    assert told("a; b", output, 127, elsewhere=tools) == [
        "'a' was not found here; the tools `a_0`, `a_1`, `a_2`, `a_3` and others have it, for the same files."
    ]


def test_what_stands_before_the_last_lines_is_not_read_and_a_skills_errors_are() -> None:
    reason = "curl: (6) Could not resolve host: example.org\n"
    assert told("make", reason + "x\n" * TAIL, 2) == []
    assert told("make", "x\n" * TAIL + reason, 2) == [NO_NETWORK]
    assert told("make", "fine\n", 2, errors=reason) == [NO_NETWORK]


@pytest.mark.parametrize(
    "piece", ["host ", "a: ", "\n", "sh: ", "1: ", "x" * 50 + ": line 1: ", "curl ", "sudo ", "a=b "]
)
def test_the_worst_output_and_the_worst_command_are_read_in_a_moment(piece: str) -> None:
    text = (piece * TAIL)[: 10 * TAIL]
    began = time.thread_time()
    told(text, text, 1, errors=text, elsewhere=knows({"a": ["b"]}))
    told(text, "", 0)
    assert time.thread_time() - began < 0.5


@given(st.text(max_size=200), st.text(max_size=200), st.sampled_from([None, 0, 1, 127]))
def test_no_command_and_no_output_is_a_fault(text: str, output: str, code: int | None) -> None:
    for sentence in told(text, output, code, elsewhere=lambda name, image: ["tool"]):
        assert "\n" not in sentence


# --- in real sandboxes ---------------------------------------------------------------------------------------------

MANIFEST = """
version = "1"
[skills.film]
description = "Cuts films."
source = "docker:film/film:1"
[skills.film.docker]
entrypoint = ["/opt/film/bin/ffmpeg"]

[skills.pages]
description = "Counts pages."
source = "docker:pages/pages:1"
[skills.pages.tools.count]
description = "Count."
argv = ["taskcell-write", "{out}", "countpages", "-q", "{out}"]
parameters.out = { type = "string", description = "Where." }

[skills.denied]
description = "Is denied."
source = "docker:denied/denied:1"
[skills.denied.docker]
entrypoint = ["deniedtool"]

[skills.same]
description = "Has the terminal's image."
source = "docker:taskcell/base:latest"
[skills.same.docker]
entrypoint = ["sametool"]
"""


@pytest.fixture
async def task(tmp_path: Path, gateway: GatewayFactory) -> AsyncIterator[Task]:
    path = tmp_path / "skills.toml"
    path.write_text(MANIFEST, encoding="utf-8")
    toml = f'manifests = ["{path}"]\n[policy]\nallowed_images = ["taskcell/*", "film/*", "pages/*"]\n'
    async with gateway(toml) as gw:
        yield Task(gw)


REAL = (
    ("curl -sS https://example.org/", [NO_NETWORK]),
    ("curl -s https://example.org/ | cat", [NO_NETWORK]),
    ("git clone -q https://example.org/x.git", [NO_NETWORK]),
    ("wget -q http://10.1.2.3/", [NO_NETWORK]),
    ("python -c 'import socket; socket.create_connection((\"example.org\", 80))'", [NO_NETWORK]),
    ("pip -q install --retries 0 x 2>&1 | tail -1", [NO_NETWORK]),
    ("apt-get install -y nano", [NO_PACKAGES]),
    ("curl -sS http://127.0.0.1:9/", []),
    ("hostname -f", []),
    ("curl -sS https://example.org/ || true", [NO_NETWORK]),
    ("ffmpeg -version", ["'ffmpeg' was not found here; the tool `film` has it, for the same files."]),
    ("countpages a", ["'countpages' was not found here; the tool `pages_count` has it, for the same files."]),
    (
        "printf 'a:\\n\\tffmpeg' | make -f -",
        ["'ffmpeg' was not found here; the tool `film` has it, for the same files."],
    ),
    ("which ffmpeg", ["'ffmpeg' was not found here; the tool `film` has it, for the same files."]),
    ("deniedtool", []),
    ("sametool", []),
    ("node -v", []),
    ("ffmpeg || true", []),
    ("f() { echo; }; python -m venv --without-pip v && . v/bin/activate && deactivate", []),
    ("deactivate", []),
    ("f", [KEPT.format("f")]),
    (". v/bin/activate", []),
    ("deactivate", [KEPT.format("deactivate")]),
)


@pytest.mark.engine
@pytest.mark.anyio
async def test_real_commands_get_the_note_that_is_right_for_them(task: Task) -> None:
    told = []
    for command, _ in REAL:
        notes = (await task.terminal(command)).notes
        # A helper of git may live a moment longer than git.
        told.append((command, [note for note in notes if "in the background" not in note]))
    assert told == list(REAL)


@pytest.mark.engine
@pytest.mark.anyio
async def test_a_command_that_went_on_is_told_when_it_is_waited_for(task: Task) -> None:
    started = await task.terminal("sleep 0.5; curl -sS https://example.org/", wait=0.1)
    assert NO_NETWORK not in started.notes
    assert NO_NETWORK in (await task.ask("wait", started.process_id, wait=20)).notes


@pytest.mark.anyio
async def test_a_tool_that_is_not_offered_is_not_named(tmp_path: Path, gateway: GatewayFactory) -> None:
    path = tmp_path / "skills.toml"
    path.write_text(MANIFEST, encoding="utf-8")
    missing = "'ffmpeg' was not found here; the tool `film` has it, for the same files."
    async with gateway(f'manifests = ["{path}"]\n', engine="local") as gw:
        task = Task(gw)
        command = "echo 'bash: line 1: ffmpeg: command not found'; exit 127"
        assert (await task.terminal(command)).notes == (missing,)
        gw.replace_tools(gw.tools, {"film": "its image is missing"})
        assert (await task.terminal(command)).notes == ()
    async with gateway(f'manifests = ["{path}"]\n[tools]\nhide = ["fi*"]\n', engine="local") as gw:
        assert (await Task(gw).terminal(command)).notes == ()
