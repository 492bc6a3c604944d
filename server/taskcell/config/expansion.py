"""Expand the variables of a container table: those of the server's environment, in some of its texts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from taskcell.config.container_table import ContainerTable
from taskcell.config.fields import check_variable_name
from taskcell.config.image_reference import full_reference
from taskcell.config.toml_source import Fault
from taskcell.config.volumes import WORKDIR_MARK, WORKDIR_VARIABLE, NotAVolume, check_shell_forms, mount_of
from taskcell.model import WORKSPACE
from taskcell.mounts import Mount
from taskcell.secret import Hidden, Secret, SecretUnreadable

_FORM = re.compile(r"\$(?:\{([A-Za-z_][A-Za-z0-9_]*)(?::([-?])([^{}]*))?\}|(\{[^}]*\}?|[A-Za-z_($]))")


class UnsetVariable(ValueError):
    """A text needs a variable that is not set in the server's environment."""


def _fault(key: tuple[str | int, ...], error: ValueError) -> Fault:
    return Fault(key, str(error), leaves_out=isinstance(error, UnsetVariable))


@dataclass(frozen=True, slots=True)
class Expanded:
    """The texts of a container table with the server's variables filled in; the environment's values may be secret."""

    image: str
    environment: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    mounts: tuple[Mount, ...] = ()
    extra_args: tuple[str, ...] = field(default=(), repr=False)
    secrets: tuple[Secret, ...] = ()


def expand_table(table: ContainerTable, environ: Mapping[str, str]) -> tuple[Expanded, list[Fault]]:
    """Expand and read a table's image, environment and volumes.

    Returns them with every fault; the key of each begins at the table.
    """
    found: list[Fault] = []
    image = ""
    try:
        image = _expand_image(table.image, environ)
    except ValueError as error:
        found.append(_fault(("image",), error))
    environment, wrong = expand_environment(table.environment, environ)
    found += wrong
    mounts = []
    for index, volume in enumerate(table.volumes):
        try:
            mounts.append(_mount(volume, environ))
        except ValueError as error:
            found.append(_fault(("volumes", index), error))
            if isinstance(error, NotAVolume) and error.kept:
                with suppress(ValueError):
                    mounts.append(_mount(error.kept, environ))  # so that everything is said of it at once
    # The workspace is at /workspace already; asking for it there changes nothing.
    kept = tuple(mount for mount in mounts if mount != Mount(None, WORKSPACE))
    options, wrong = _expand_options(table.extra_args, environ)
    secrets, unreadable = _secrets(table.secrets, environ)
    return Expanded(image, environment, kept, options, secrets), found + wrong + unreadable


def _secrets(entries: tuple[str, ...], environ: Mapping[str, str]) -> tuple[tuple[Secret, ...], list[Fault]]:
    """Read `NAME=file:/path` and `NAME=env:VAR`, and whether each has a value now."""
    secrets, found = [], []
    for index, entry in enumerate(entries):
        name, _, source = entry.partition("=")
        kind, _, place = source.partition(":")
        if kind == "file":
            home = environ.get("HOME", "")
            secret = Secret(name, file=home + place[1:] if place.startswith("~/") else place)
        else:
            secret = Secret(name, variable=place, held=Hidden(environ.get(place, "")))
        try:
            if kind == "env" and place not in environ:
                raise SecretUnreadable(f"is to be in the variable {place}, which the server does not have; set it")
            secret.read()
        except SecretUnreadable as error:
            # As an unset variable: what needs it is left out, where that can be.
            found.append(Fault(("secrets", index), f"{name} {error}", leaves_out=True))
        secrets.append(secret)
    return tuple(secrets), found


#: Options of `docker run` whose values may hold variables, as the keys of the same meaning may.
_OF_VARIABLES = ("--env", "-e")
_OF_MOUNTS = ("--volume", "-v", "--mount")


def _expand_options(words: tuple[str, ...], environ: Mapping[str, str]) -> tuple[tuple[str, ...], list[Fault]]:
    expanded: list[str] = []
    found: list[Fault] = []
    option = ""
    for index, word in enumerate(words):
        names = (*_OF_VARIABLES, *_OF_MOUNTS)
        joined = next((name for name in names if word.startswith(f"{name}=" if name[1] == "-" else name)), "")
        inline = bool(joined) and not option and word != joined
        given = joined if inline else option
        option = word if not option and word in names else ""
        bare = word.removeprefix(given).removeprefix("=") if inline else word
        try:
            text: str | None
            if given in ("--volume", "-v"):
                text = _expand_volume(bare, environ)
            elif given in _OF_VARIABLES:
                text = _expand_variable(bare, environ)
            else:
                text = _expand(bare, environ) if given else word
            if given in ("--volume", "-v") and text is not None and text != bare:
                # Read here, where a fault shows the word as it is written: what it expands to may be secret.
                mount_of(text)
        except ValueError as error:
            wrong = NotAVolume(bare) if isinstance(error, NotAVolume) else error
            found.append(_fault(("extra_args", index), wrong))
            text = None
        if text is None:
            # The option goes with its value, which is faulty, or the variable of it is not set.
            del expanded[len(expanded) - (not inline) :]
            continue
        text = text.replace(WORKDIR_MARK, WORKSPACE) if given in _OF_VARIABLES else text
        expanded.append(word.removesuffix(bare) + text)
    return tuple(expanded), found


def _expand_variable(entry: str, environ: Mapping[str, str]) -> str | None:
    """Expand the value of `KEY=value`; None for a `KEY?=value` whose variable is not set. Raises ValueError."""
    name, equals, value = entry.partition("=")
    if not (equals and name.endswith("?")):
        return _expand(entry, environ)
    try:
        return f"{name[:-1]}={_expand(value, environ)}"
    except UnsetVariable:
        return None


def expand_environment(
    entries: tuple[str, ...], environ: Mapping[str, str]
) -> tuple[tuple[tuple[str, str], ...], list[Fault]]:
    """Read `KEY=value` entries as pairs, in order, but for those of `KEY?=value` whose variable is not set.

    Returns them with every fault; the key of each begins at the table that holds `environment`.
    """
    pairs, found = [], []
    for index, entry in enumerate(entries):
        name, equals, value = entry.partition("=")
        is_optional = bool(equals) and name.endswith("?")
        try:
            pairs.append(_variable(f"{name[:-1]}={value}" if is_optional else entry, environ))
        except ValueError as error:
            if not (is_optional and isinstance(error, UnsetVariable)):
                found.append(_fault(("environment", index), error))
    return tuple(pairs), found


def _expand_image(image: str, environ: Mapping[str, str]) -> str:
    if not image:
        raise ValueError("is missing; name the image, as in 'python:3.12-slim'")
    expanded = _expand(image, environ)
    if WORKDIR_MARK in expanded:
        raise ValueError(f"${{{WORKDIR_VARIABLE}}} has no meaning in an image's name")
    try:
        full_reference(expanded)
    except ValueError:
        # Not the expanded text: it may hold a value of the server's environment.
        raise ValueError(f"{image!r} is not an image reference; write it as in 'python:3.12-slim'") from None
    return expanded


def _variable(entry: str, environ: Mapping[str, str]) -> tuple[str, str]:
    name, equals, value = entry.partition("=")
    if not equals:
        if not re.fullmatch(r"\w+", name):
            raise ValueError("a variable is 'KEY=value', or 'KEY?=${KEY}' to pass the server's own on where it is set")
        raise ValueError(
            f"a name alone would forward the server's own variable; write '{name}?=${{{name}}}' to pass it on where it "
            "is set, or 'KEY=value'"
        )
    try:
        check_variable_name(name)
    except ValueError as error:
        raise ValueError(f"{name!r} {error}") from None
    return name, _expand(value, environ).replace(WORKDIR_MARK, WORKSPACE)


def _mount(volume: str, environ: Mapping[str, str]) -> Mount:
    try:
        return mount_of(_expand_volume(volume, environ))
    except NotAVolume:
        raise NotAVolume(volume) from None


def _expand_volume(volume: str, environ: Mapping[str, str]) -> str:
    """Expand a volume's variables, and `~` at its beginning. Raises ValueError."""
    check_shell_forms(volume)
    if volume.startswith(("~/", "~:")):
        volume = "${HOME}" + volume[1:]
    try:
        return _expand(volume, environ)
    except UnsetVariable as error:
        if "${PWD" not in volume:
            raise
        target = volume.rpartition("}")[2].partition(":")[2] or "/target"
        files = f"${{{WORKDIR_VARIABLE}}}:{target}"
        raise UnsetVariable(f"{error}; for the task's files write {files!r}") from None


def _expand(text: str, environ: Mapping[str, str]) -> str:
    def value(match: re.Match[str]) -> str:
        name, operator, operand, unknown = match.groups()
        if unknown is not None:
            raise ValueError(
                f"{match[0]!r} is not understood; only ${{VAR}}, ${{VAR:-default}} and ${{VAR:?message}} are expanded"
            )
        if name == WORKDIR_VARIABLE and operator is None:
            return WORKDIR_MARK
        found = environ.get(name)
        if operator is None and found is not None:
            return found
        if operator is not None and found:
            return found
        if operator == "-":
            return str(operand)
        reason = operand if operator and operand else f"set it, or write ${{{name}:-default}}"
        raise UnsetVariable(f"the variable {name} is not set in the server's environment: {reason}")

    return _FORM.sub(value, text)
