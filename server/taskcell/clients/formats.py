"""The formats of clients' configuration files: how each is read, and how one server in it is changed.

The libraries are imported when a file of their format is there: a server that starts needs none of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Parsed = dict[str, Any]
Keys = Sequence[str]
Server = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Format:
    """A format of text.

    Arguments:
        title: as people call it.
        parse: what a text holds. Raises ValueError with the end of a sentence.
        edit: the text with the member at a path set, or without it for None. Raises ValueError.
    """

    title: str
    parse: Callable[[str], Parsed]
    edit: Callable[[str, Keys, Server | None], str]


def _parse_json(text: str) -> Parsed:
    from taskcell.clients import jsonc

    return jsonc.loads(text, comments=False)


def _parse_jsonc(text: str) -> Parsed:
    from taskcell.clients import jsonc

    return jsonc.loads(text)


def _edit_jsonc(text: str, path: Keys, server: Server | None) -> str:
    from taskcell.clients import jsonc

    return jsonc.edit(text, path, server)


def _parse_toml(text: str) -> Parsed:
    from taskcell.clients import toml

    return toml.loads(text)


def _edit_toml(text: str, path: Keys, server: Server | None) -> str:
    from taskcell.clients import toml

    return toml.edit(text, path, server)


def _parse_yaml(text: str) -> Parsed:
    from taskcell.clients import yaml

    return yaml.loads(text)


def _edit_yaml(text: str, path: Keys, server: Server | None) -> str:
    from taskcell.clients import yaml

    return yaml.edit(text, path, server)


JSON = Format("JSON", _parse_json, _edit_jsonc)
#: JSON with comments, and with commas after a last member.
JSONC = Format("JSON with comments", _parse_jsonc, _edit_jsonc)
TOML = Format("TOML", _parse_toml, _edit_toml)
YAML = Format("YAML", _parse_yaml, _edit_yaml)
