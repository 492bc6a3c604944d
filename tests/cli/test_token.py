"""`taskcell token`: the token once on standard output, and nothing of it afterwards."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from taskcell.auth.tokens import TokenFile

Taskcell = Callable[..., Any]


@pytest.fixture
def config(tmp_path: Path) -> str:
    (tmp_path / "my.toml").write_text('[http]\ntokens_file = "tokens.json"\n')
    return str(tmp_path / "my.toml")


def test_the_token_alone_is_on_standard_output_and_it_counts(taskcell: Taskcell, config: str, tmp_path: Path) -> None:
    done = taskcell("token", "create", "ada", "--scope", "files", "--expires", "30d", "--config", config)
    assert done.code == 0
    (text,) = done.out.splitlines()
    token = TokenFile(tmp_path / "tokens.json").find(text)
    assert token is not None
    assert token.subject == "ada"
    assert token.expires == pytest.approx(token.created + 30 * 86400)
    assert text not in done.err
    assert token.id in done.err


def test_the_list_shows_who_and_what_and_no_secret(taskcell: Taskcell, config: str) -> None:
    text = taskcell("token", "create", "ada", "--config", config).out.strip()
    plain, as_json = (
        taskcell("token", "list", "--config", config),
        taskcell("token", "list", "--json", "--config", config),
    )
    secret = text.split("_", 2)[2]
    assert secret not in plain.out + as_json.out
    (listed,) = json.loads(as_json.out)
    assert listed["subject"] == "ada"
    assert listed["scopes"] == ["terminal", "skills", "files", "ports"]
    assert listed["id"] in plain.out
    assert "hash" not in listed


def test_a_revoked_token_is_gone_and_an_unknown_one_is_one_sentence(
    taskcell: Taskcell, config: str, tmp_path: Path
) -> None:
    text = taskcell("token", "create", "ada", "--config", config).out.strip()
    identity = text.split("_")[1]
    done = taskcell("token", "revoke", identity, "--config", config)
    assert (done.code, done.out) == (0, "1 token revoked.\n")
    assert TokenFile(tmp_path / "tokens.json").find(text) is None
    again = taskcell("token", "revoke", identity, "--config", config)
    assert again.code == 1
    assert again.err == f"taskcell: There is no token with the id '{identity}'; `taskcell token list` shows the ids.\n"


def test_without_a_file_for_tokens_the_command_says_what_to_set(taskcell: Taskcell, tmp_path: Path) -> None:
    (tmp_path / "bare.toml").write_text("")
    done = taskcell("token", "create", "ada", "--config", str(tmp_path / "bare.toml"))
    assert done.code == 1
    assert "set http.tokens_file in taskcell.toml" in done.err


def test_a_token_for_the_local_user_is_refused(taskcell: Taskcell, config: str) -> None:
    done = taskcell("token", "create", "local", "--config", config)
    assert (done.code, done.out) == (1, "")
    assert "choose another name" in done.err
