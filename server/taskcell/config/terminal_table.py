"""The table `[terminal]`, and the tables `[environments.NAME]`, which say the same of other environments."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, field_validator

from taskcell.config.container_table import ContainerTable
from taskcell.config.fields import Text, Word, Words
from taskcell.environment import DEFAULT_ENVIRONMENT

_ENVIRONMENT = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_-]{0,31}")


class TerminalSettings(ContainerTable):
    """`[terminal]`: the profile of the tool `terminal`.

    `setup` is a command that is run once in each new sandbox.
    """

    image: Word = "taskcell/base:latest"
    shell: Words = ("bash", "-c")
    setup: Text = ""

    @field_validator("shell")
    @classmethod
    def _shell_runs_a_line(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value or not all(value):
            raise ValueError("must be a program and its options, as in ['bash', '-c']; the command is put after them")
        return value

    @field_validator("entrypoint", "command")
    @classmethod
    def _only_a_shell(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if value:
            raise ValueError("has no meaning for the terminal, which runs 'shell'; set 'shell', or leave it out")
        return value

    @field_validator("reuse")
    @classmethod
    def _state_lives_in_the_sandbox(cls, value: str) -> str:
        if value == "call":
            raise ValueError("must be 'task': the terminal's working directory and environment live in its sandbox")
        return value


def _named(value: dict[str, TerminalSettings]) -> dict[str, TerminalSettings]:
    for name in value:
        if name == DEFAULT_ENVIRONMENT:
            raise ValueError(f"must not have the name '{name}', which is [terminal]; name it otherwise")
        if not _ENVIRONMENT.fullmatch(name):
            raise ValueError("must have names of at most 32 letters, digits, '_' and '-', the first of them no sign")
    return value


EnvironmentTables = Annotated[dict[str, TerminalSettings], AfterValidator(_named)]
