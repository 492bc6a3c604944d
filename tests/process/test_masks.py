"""Secrets in output that comes in pieces."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from taskcell.process.masks import MaskedStream, Masks

SECRETS = ("hunter2-hunter2", "abababab", "line one of it\nline two of it")


def masks() -> Masks:
    made = Masks()
    for secret in SECRETS:
        made.add(secret)
    return made


@given(
    words=st.lists(st.sampled_from([*SECRETS, "hunter2-", "abab", " ", "b", "\n", "plain"]), max_size=12),
    cuts=st.lists(st.integers(0, 200), max_size=8),
)
def test_a_stream_is_masked_the_same_however_it_is_cut(words: list[str], cuts: list[int]) -> None:
    data = "".join(words).encode()
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    stream = MaskedStream(masks())
    shown = b"".join(stream.feed(data[a:b]) for a, b in pairwise(places)) + stream.rest()
    assert len(shown) == len(data)
    for secret in SECRETS:
        assert secret.encode() not in shown
    if not any(secret in data.decode() for secret in (*SECRETS, *SECRETS[2].split("\n"))):
        assert shown == data


def test_only_the_beginning_of_a_secret_is_held_back() -> None:
    stream = MaskedStream(masks())
    assert stream.feed(b"$ hunter2") == b"$ "
    assert stream.feed(b"-hunter3\n") == b"hunter2-hunter3\n"
    assert stream.feed(b"> ") == b"> "
    assert stream.feed(b"hunt") == b""
    assert stream.rest() == b"hunt"


def test_what_no_secret_is_in_passes_as_it_is() -> None:
    piece = b"\x00\xff" * 10
    assert MaskedStream(Masks()).feed(piece) is piece
