"""Parse argument templates, such as `["-i", "{input}", ["-q:v", "{quality}"]]`, and fill them with values.

A value fills one argument or a part of one. It is never split, and never parsed again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from taskcell.config.toml_source import Fault
from taskcell.errors import BadArgument

#: The name of a parameter.
PARAMETER_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_PART = re.compile(r"(?P<brace>\{\{|\}\})|\{(?P<name>[A-Za-z_][A-Za-z0-9_]{0,63})\}|(?P<text>[^{}]+)")
_CONDITION = re.compile(r"\{\?(?P<name>[A-Za-z_][A-Za-z0-9_]{0,63})\}")

#: Values that fill a template, by parameter: a text for one argument, a tuple for a list. Absent ones are left out.
Values = Mapping[str, str | tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Placeholder:
    """The place of a parameter's value."""

    name: str


@dataclass(frozen=True, slots=True)
class Element:
    """One argument: texts and placeholders side by side. `key` is its place in the manifest's table."""

    key: tuple[str | int, ...]
    parts: tuple[str | Placeholder, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(part.name for part in self.parts if isinstance(part, Placeholder))

    @property
    def leading(self) -> tuple[str, ...]:
        """The parameters whose value may be the argument's beginning."""
        names = []
        for part in self.parts:
            if isinstance(part, str):
                break
            names.append(part.name)
        return tuple(names)

    @property
    def is_whole(self) -> bool:
        """Whether the argument is one value and nothing else."""
        return len(self.parts) == 1 and isinstance(self.parts[0], Placeholder)

    def fill(self, words: Values, guarded: AbstractSet[str]) -> Iterator[tuple[str, str]]:
        """Yield the arguments that it becomes, each after the name of what filled it. Raises BadArgument."""
        several = words[self.names[0]] if self.is_whole else ""
        if isinstance(several, tuple):
            name = self.names[0]
            for index, item in enumerate(several):
                _check_dash(f"{name}[{index}]", item, name in guarded)
                yield f"{name}[{index}]", item
            return
        text, longest = "", ("", -1)
        for part in self.parts:
            if isinstance(part, str):
                text += part
                continue
            word = words[part.name]
            assert isinstance(word, str)
            _check_dash(part.name, word, not text and part.name in guarded)
            longest = max(longest, (part.name, len(word)), key=lambda pair: pair[1])
            text += word
        yield longest[0], text


def _check_dash(name: str, word: str, guarded: bool) -> None:
    if guarded and word.startswith("-"):
        raise BadArgument(
            f"'{name}' must not begin with '-': the program would read it as an option. "
            "Write the path of such a file with './' before it."
        )


@dataclass(frozen=True, slots=True)
class Group:
    """Arguments that are kept or left out together. `condition` is the boolean in `{?name}` at its beginning."""

    key: tuple[str | int, ...]
    elements: tuple[Element, ...]
    condition: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for element in self.elements for name in element.names)

    def is_kept(self, words: Values) -> bool:
        """False when a parameter in it is absent or an empty list, or its condition is not true."""
        if self.condition is not None and words.get(self.condition) != "true":
            return False
        return all(words.get(name, ()) != () for name in self.names)


@dataclass(frozen=True, slots=True)
class Template:
    """A parsed `argv`."""

    items: tuple[Element | Group, ...] = ()

    @property
    def elements(self) -> Iterator[Element]:
        for item in self.items:
            yield from item.elements if isinstance(item, Group) else (item,)

    @property
    def names(self) -> frozenset[str]:
        """Every parameter that it names."""
        named = {name for element in self.elements for name in element.names}
        return frozenset(named | {item.condition for item in self.items if isinstance(item, Group) and item.condition})

    @property
    def leading(self) -> frozenset[str]:
        """The parameters whose value may begin an argument."""
        return frozenset(name for element in self.elements for name in element.leading)

    def fill(self, words: Values, guarded: AbstractSet[str]) -> Iterator[tuple[str, str]]:
        """Yield each argument, after the name of the parameter that makes up most of it, or empty.

        Arguments:
            words: the values of every parameter that is not absent.
            guarded: parameters whose value must not begin an argument with `-`.

        Raises:
            BadArgument: a value would be read as an option.
        """
        for item in self.items:
            if isinstance(item, Group):
                if item.is_kept(words):
                    for element in item.elements:
                        yield from element.fill(words, guarded)
            else:
                yield from item.fill(words, guarded)


def parse_template(argv: object) -> tuple[Template, list[Fault]]:
    """Parse the value of `argv`. Returns it with every fault; the key of each begins at the table that holds it."""
    if not isinstance(argv, list | tuple):
        return Template(), [Fault(("argv",), "must be a list of strings, and of lists of strings for optional groups")]
    wrong: list[Fault] = []
    items: list[Element | Group] = []
    for index, item in enumerate(argv):
        key = ("argv", index)
        if isinstance(item, list | tuple):
            items.append(_group(key, item, wrong))
        else:
            items.append(_element(key, item, wrong))
    return Template(tuple(items)), wrong


def _group(key: tuple[str | int, ...], texts: Sequence[object], wrong: list[Fault]) -> Group:
    first = texts[0] if texts else ""
    condition = _CONDITION.fullmatch(first) if isinstance(first, str) else None
    rest = list(enumerate(texts))[1 if condition else 0 :]
    before = len(wrong)
    elements = tuple(_element((*key, index), text, wrong) for index, text in rest)
    group = Group(key, elements, condition["name"] if condition else None)
    if len(wrong) == before and not elements:
        wrong.append(Fault(key, "is an empty group: write the arguments that belong together, or leave it out"))
    elif len(wrong) == before and condition is None and not group.names:
        sentence = "is a group without a parameter, which would always be kept: write its strings without the list"
        wrong.append(Fault(key, f"{sentence}, or begin it with '{{?name}}' of a boolean"))
    return group


def _element(key: tuple[str | int, ...], text: object, wrong: list[Fault]) -> Element:
    if not isinstance(text, str):
        inside = len(key) > 2
        wrong.append(Fault(key, "must be a string" if inside else "must be a string, or a list of strings for a group"))
        return Element(key, ())
    if "\0" in text:
        wrong.append(Fault(key, "must not hold a NUL character"))
    if _CONDITION.match(text):
        sentence = "'{?name}' stands alone as the first string of a group, which is left out unless the boolean is true"
        wrong.append(Fault(key, sentence))
        return Element(key, ())
    parts: list[str | Placeholder] = []
    at = 0
    while at < len(text):
        found = _PART.match(text, at)
        if found is None:
            sentence = f"{text!r} is not understood: write '{{name}}' for a parameter, and '{{{{' or '}}}}' for a brace"
            wrong.append(Fault(key, sentence))
            return Element(key, ())
        parts.append(Placeholder(found["name"]) if found["name"] else found["text"] or found["brace"][0])
        at = found.end()
    return Element(key, tuple(parts))
