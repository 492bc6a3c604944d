"""Which commands call sudo, by their words alone."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskcell.model import Profile
from taskcell.sandbox.sudo_notes import calls_sudo, notes_on_sudo

CALLS = (
    "sudo id",
    "  sudo -u other id",
    "/usr/bin/sudo id",
    "sudoedit /etc/hosts",
    "cd /tmp && sudo make install",
    "true; sudo id",
    "true || sudo id",
    "cat x | sudo tee y",
    "sleep 1 & sudo id",
    "(sudo id)",
    "{ sudo id; }",
    "! sudo id",
    "if sudo -v; then true; fi",
    "for i in 1; do sudo echo $i; done",
    "x=$(sudo id)",
    'echo "now $(sudo id -u)"',
    "echo `sudo id`",
    "LANG=C sudo id",
    "env -i A=b sudo id",
    "timeout -k 1 5s sudo id",
    "nice -n 5 sudo id",
    "command sudo id",
    "printf x | xargs -n 1 sudo echo",
    "echo a # why\nsudo id",
    "# first\nsudo id",
    "cat <<EOF >x\ny\nEOF\nsudo id",
    "bash -c 'cd /tmp; sudo id'",
    "echo 'x\ny'; sudo id",
    "echo x >file; sudo id",
    "tee x <<-EOF\n\ty\n\tEOF\nsudo id",
    "cat <<A; sudo id\nx\nA",
    "cat <<< x\nsudo id",
    "apt-get update && \\\nsudo id",
    "echo $((1 << x))\nsudo id",
    "find . -name x -exec sudo rm {} +",
)
MENTIONS = (
    "echo sudo",
    "echo 'sudo id'",
    'echo "; sudo id"',
    "grep -r sudo .",
    "apt-cache search sudo",
    "man sudo",
    "command -v sudo",
    "which sudo",
    "cat /etc/sudo.conf",
    "echo hi # sudo id",
    "# sudo id",
    "./sudo.sh",
    "sudoku",
    "pseudo id",
    "cat <sudo",
    "cat >sudo",
    "cat <<EOF >Dockerfile\nRUN x\nsudo id\nEOF",
    "cat > README <<'EOF'\n# Install\n\n    sudo make install\nEOF\necho ok",
    'python3 - <<"EOF"\nimport os\nsudo = 1\nEOF\n',
    "cat <<A >x\nsudo id\nA\ncat <<B >y\nsudo id\nB",
    "apt-get install -y \\\n  sudo curl",
    "cat <<EOF >script\n" + "sudo id\n" * 2000 + "EOF\n",
    "git commit -m 'use sudo here'",
    "",
    "'",
)


@pytest.mark.parametrize("line", CALLS)
def test_a_line_that_runs_sudo_calls_it(line: str) -> None:
    assert calls_sudo(line)


@pytest.mark.parametrize("line", MENTIONS)
def test_a_line_that_only_has_the_word_does_not(line: str) -> None:
    assert not calls_sudo(line)


@given(st.text(alphabet="sudo ;|&()`$'\"\\\n#<>-c=e", max_size=40))
def test_no_line_breaks_the_reading(line: str) -> None:
    assert calls_sudo(line) in (True, False)


@pytest.mark.parametrize("piece", [" -exec", "<<a;", "\n", " ", "; -x 1 a=b ", "a/", "'c '", "<<a\n", "{("])
def test_hostile_lines_take_no_long_time(piece: str) -> None:
    began = time.thread_time()
    assert not calls_sudo(piece * (100_000 // len(piece)) + " sudo")
    assert not calls_sudo(piece * (4_000 // len(piece)) + "sudo.")
    assert time.thread_time() - began < 2


def test_the_note_names_the_table_of_the_profile_and_what_is_wrong_with_the_image() -> None:
    terminal = Profile("terminal", "x", "terminal")
    skill = Profile("ffmpeg", "x", "skill")
    with_sudo = Profile("terminal", "x", "terminal", sudo=True, read_only=False)
    (note,) = notes_on_sudo(terminal, "sudo id; sudo id", "")
    assert "sudo = true in [terminal]" in note
    (note,) = notes_on_sudo(skill, "sudo id", "")
    assert "sudo = true in [skills.ffmpeg.docker]" in note
    assert notes_on_sudo(with_sudo, "sudo id", "") == []
    (note,) = notes_on_sudo(with_sudo, "sudo id", "the image has no sudo")
    assert "the image has no sudo" in note
    assert notes_on_sudo(with_sudo, "id", "the image has no sudo") == []
