"""The options of `docker run`, read as docker reads them."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskcell.profile.docker_flags import NAMES, SWITCHES, Given, parse, split

#: Seconds for the docker program to print its help, which needs no engine.
HELP_TIMEOUT = 20

_HELP_LINE = re.compile(r"\s+(?:-(?P<short>\w), )?--(?P<name>[a-z0-9-]+)(?: (?P<type>[a-z0-9-]+))?(?:\s{2,}|$)")


def read(*words: str) -> list[tuple[str, str]]:
    given, wrong = parse(words)
    assert wrong == (), wrong
    return [(one.name, one.value) for one in given]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--memory", "1g"], [("memory", "1g")]),
        (["--memory=1g"], [("memory", "1g")]),
        (["-m", "1g"], [("memory", "1g")]),
        (["-m1g"], [("memory", "1g")]),
        (["-m=1g"], [("memory", "1g")]),
        (["--memory="], [("memory", "")]),
        (["--env=A=B=C"], [("env", "A=B=C")]),
        (["--net", "host"], [("network", "host")]),
        (["--privileged"], [("privileged", "true")]),
        (["--privileged=false"], [("privileged", "false")]),
        (["--privileged=1"], [("privileged", "true")]),
        (["-v/:/h"], [("volume", "/:/h")]),
        (["-v=/:/h"], [("volume", "/:/h")]),
        (["-v", "/:/h"], [("volume", "/:/h")]),
        (["-itd"], [("interactive", "true"), ("tty", "true"), ("detach", "true")]),
        (["-itv", "/:/h"], [("interactive", "true"), ("tty", "true"), ("volume", "/:/h")]),
        (["-itv/:/h"], [("interactive", "true"), ("tty", "true"), ("volume", "/:/h")]),
        (["-t=false"], [("tty", "false")]),
        # A value is whatever comes next, an option's name too.
        (["-v", "--privileged"], [("volume", "--privileged")]),
        (["--name", "--"], [("name", "--")]),
    ],
)
def test_each_form_that_docker_reads_is_read_as_docker_reads_it(words, expected):
    assert read(*words) == expected


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ["ubuntu"],
            "'ubuntu' is not an option; a word by itself would be the image, which belongs into",
        ),
        (["--"], "'--' is not an option"),
        (["-"], "'-' is not an option"),
        (["--rm", "false"], "'false' is not an option; a word by itself"),
        (["--privilegd"], "'--privilegd' is not an option of docker run"),
        (["--Privileged"], "'--Privileged' is not an option of docker run"),
        (["--v", "/:/h"], "'--v' is not an option of docker run"),
        (["---privileged"], "'---privileged' is not an option of docker run"),
        (["-x"], "'-x' is not an option of docker run"),
        (["-ix"], "'-x' is not an option of docker run"),
        (["--memory"], "'--memory' needs a value"),
        (["-iv"], "'-v' needs a value"),
        (["--rm=maybe"], "'--rm' is on or off; write it alone, or with '=true' or '=false'"),
        ([""], "'' is not an option"),
    ],
)
def test_what_docker_would_not_take_for_an_option_is_refused_by_name(words, sentence):
    _, wrong = parse(words)
    assert sentence in wrong[0].reason


def test_a_misplaced_value_does_not_show_in_the_refusal():
    _, wrong = parse(["-e", "A=1", "TOKEN=s3cret"])
    assert "TOKEN" in wrong[0].reason
    assert "s3cret" not in wrong[0].reason


def test_what_was_given_around_faults_is_kept_and_every_fault_is_told():
    given, wrong = parse(["--privileged", "word", "--rm", "--odd", "value", "-x", "-t"])
    assert given == (Given("privileged", "true"), Given("rm", "true"), Given("tty", "true"))
    assert [refusal.reason.split(" ")[0] for refusal in wrong] == ["'word'", "'--odd'", "'-x'"]


@pytest.mark.parametrize(
    ("line", "options", "rest"),
    [
        ("-it --rm alpine ls -l", ["-it", "--rm"], ["alpine", "ls", "-l"]),
        ("-v /a:/b -e A=1 --name x img", ["-v", "/a:/b", "-e", "A=1", "--name", "x"], ["img"]),
        ("--odd img", ["--odd"], ["img"]),
        ("-e", ["-e"], []),
        ("--rm -- img -x", ["--rm"], ["img", "-x"]),
        ("", [], []),
    ],
)
def test_a_line_splits_into_options_and_image_with_command(line, options, rest):
    assert split(line.split()) == (options, rest)


@given(st.lists(st.text("-abcdeimtvprx=/: \n", max_size=8), max_size=6))
def test_no_words_make_the_parser_fail(words):
    found, wrong = parse(words)
    assert all(one.name in NAMES for one in found)
    assert all(one.value in ("true", "false") for one in found if one.name in SWITCHES)
    assert wrong or found or not words
    options, rest = split(words)
    assert [*options, *rest] in (words, [word for index, word in enumerate(words) if index != len(options)])


def test_every_option_of_the_docker_program_here_is_known_with_its_short_form_and_its_kind():
    program = shutil.which("docker")
    if program is None:
        # The table was checked against Docker 20.10 and 28; without the program there is nothing more to compare with.
        assert "privileged" in NAMES
        return
    printed = subprocess.run(
        [program, "run", "--help"], check=True, capture_output=True, text=True, timeout=HELP_TIMEOUT
    )
    found = [match for line in printed.stdout.splitlines() if (match := _HELP_LINE.match(line))]
    assert len(found) > 80
    for match in found:
        name, short, takes_value = match["name"], match["short"], match["type"] is not None
        words = ["x"] if takes_value else []
        for written in filter(None, (f"--{name}", short and f"-{short}")):
            assert read(written, *words) == [(name, "x" if takes_value else "true")], written
