"""The file of tokens: what is kept, what counts, and what a broken file does."""

from __future__ import annotations

import json
import stat
import threading
from pathlib import Path

import pytest

from taskcell.auth import tokens as module
from taskcell.auth.tokens import TokenFile, TokensUnreadable
from taskcell.caller import USUAL_SCOPES, Scope
from taskcell.errors import BadArgument


def test_a_token_is_found_by_its_text_alone_and_the_file_does_not_hold_it(tmp_path: Path) -> None:
    file = TokenFile(tmp_path / "tokens.json")
    token, text = file.create("ada", frozenset({Scope.FILES}), None)
    found = file.find(text)
    assert found == token
    assert (token.subject, token.scopes, token.expires) == ("ada", frozenset({Scope.FILES}), None)
    written = file.path.read_text()
    assert text not in written
    assert text.rpartition("_")[2] not in written
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600


@pytest.mark.parametrize("change", [lambda t: t[:-1], lambda t: t + "x", lambda t: t.upper(), lambda t: t[9:]])
def test_another_text_is_no_token(tmp_path: Path, change: object) -> None:
    file = TokenFile(tmp_path / "tokens.json")
    text = file.create("ada", USUAL_SCOPES, None)[1]
    assert callable(change)
    assert file.find(change(text)) is None
    assert file.find("") is None
    assert file.find("taskcell_") is None


def test_a_token_ends_with_its_lifetime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = TokenFile(tmp_path / "tokens.json")
    token, text = file.create("ada", USUAL_SCOPES, 60.0)
    assert file.find(text) == token
    assert token.expires is not None
    end = token.expires
    monkeypatch.setattr(module.time, "time", lambda: end)
    assert file.find(text) is None
    assert not file.has(token)


def test_what_another_process_writes_counts_at_the_next_look(tmp_path: Path) -> None:
    served, written = TokenFile(tmp_path / "tokens.json"), TokenFile(tmp_path / "tokens.json")
    assert served.tokens() == {}
    token, text = written.create("ada", USUAL_SCOPES, None)
    assert served.find(text) == token
    written.revoke([token.id])
    assert served.find(text) is None
    assert not served.has(token)


def test_tokens_that_are_made_at_once_are_all_kept(tmp_path: Path) -> None:
    path, texts = tmp_path / "tokens.json", list[str]()

    def make() -> None:
        texts.append(TokenFile(path).create("ada", USUAL_SCOPES, None)[1])

    makers = [threading.Thread(target=make) for _ in range(8)]
    for maker in makers:
        maker.start()
    for maker in makers:
        maker.join()
    assert len(texts) == 8
    assert all(TokenFile(path).find(text) for text in texts)


def test_an_unknown_id_revokes_nothing(tmp_path: Path) -> None:
    file = TokenFile(tmp_path / "tokens.json")
    token, _ = file.create("ada", USUAL_SCOPES, None)
    with pytest.raises(BadArgument, match="no token with the id 'nope'"):
        file.revoke([token.id, "nope"])
    assert file.has(token)


@pytest.mark.parametrize("subject", ["local", "", "-x", "a b", "a\n", "a" * 129, "ä"])
def test_a_subject_that_is_no_plain_name_or_the_local_user_is_refused(tmp_path: Path, subject: str) -> None:
    with pytest.raises(BadArgument):
        TokenFile(tmp_path / "tokens.json").create(subject, USUAL_SCOPES, None)
    assert not (tmp_path / "tokens.json").exists()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        '{"tokens": 1}',
        '{"tokens": [1]}',
        '{"tokens": [{"id": "x"}]}',
        "\x00",
        "[" * 5000,
        json.dumps(
            {"tokens": [{"id": "a", "subject": "local", "scopes": "", "created": 1, "expires": None, "hash": "0"}]}
        ),
    ],
)
def test_a_file_that_is_not_what_the_command_writes_lets_nobody_in(tmp_path: Path, text: str) -> None:
    file = TokenFile(tmp_path / "tokens.json")
    file.path.write_text(text)
    file.path.chmod(0o600)
    with pytest.raises(TokensUnreadable, match="is not what `taskcell token` writes"):
        file.find("taskcell_x_y")


def test_a_file_that_others_may_read_or_that_is_a_link_lets_nobody_in(tmp_path: Path) -> None:
    file = TokenFile(tmp_path / "tokens.json")
    _, text = file.create("ada", USUAL_SCOPES, None)
    file.path.chmod(0o640)
    with pytest.raises(TokensUnreadable, match="chmod 600"):
        TokenFile(file.path).find(text)
    file.path.chmod(0o600)
    link = tmp_path / "link.json"
    link.symlink_to(file.path)
    with pytest.raises(TokensUnreadable):
        TokenFile(link).find(text)
