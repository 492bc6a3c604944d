"""Answers to requests that no route has answered."""

from __future__ import annotations

import json

import pytest

from taskcell.client.failures import ArgumentError, CellError, LostError, TookTooLongError, error_of
from taskcell.http.refuse import error_answer


@pytest.mark.parametrize(
    ("status", "kind"), [(400, ArgumentError), (413, ArgumentError), (502, LostError), (504, TookTooLongError)]
)
def test_what_another_server_did_wrong_is_not_blamed_on_an_argument(status: int, kind: type[CellError]) -> None:
    answer = error_answer(status, "The server that has the task closed the connection without an answer.")
    assert type(error_of(json.loads(bytes(answer.body))["error"])) is kind
