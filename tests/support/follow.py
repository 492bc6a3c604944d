"""Follow what `taskcell skills check` says about a line of `docker run`, as one who only reads and copies."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tomlkit

from taskcell.assembly import stack
from taskcell.assembly.check import find_faults
from taskcell.assembly.invocation import Invocation
from taskcell.profile.docker_flags import SWITCHES

_QUOTED = r"'((?:[^'\\]|\\.)*)'"
_ADD = re.compile(rf"the operator can add {_QUOTED} to policy\.(\w+)")
_SET = re.compile(r"the operator can set policy\.(\w+) = ('?)([^',]+)\2,")
_WRITE = re.compile(rf"write {_QUOTED}")
_SUCH_AS = re.compile(rf"such as {_QUOTED}")
_REMOVE = re.compile(r"--([a-z-]+) .*remove it from extra_args")


@dataclass
class Skill:
    """A skill that a line became, and the policy that it needs; both are changed by what is said about them."""

    image: str
    command: list[str]
    options: list[str]
    policy: dict[str, Any] = field(default_factory=dict)
    #: It is an MCP server, which the client starts by itself.
    is_elsewhere: bool = False

    def faults(self, folder: Path, environ: dict[str, str]) -> list[str]:
        """Write configuration and manifest into the folder, and return what `skills check` prints."""
        docker = {"image": self.image, "command": self.command, "extra_args": self.options}
        (folder / "manifests").mkdir(parents=True, exist_ok=True)
        (folder / "manifests" / "line.toml").write_text(tomlkit.dumps({"skills": {"line": {"docker": docker}}}))
        (folder / "taskcell.toml").write_text(tomlkit.dumps({"policy": self.policy}))
        run = Invocation(environ, folder)
        return find_faults(run, stack.load_settings(run))

    def follow(self, sentence: str) -> None:
        """Do the one thing that the sentence says."""
        if "looks like an MCP server" in sentence:
            self.is_elsewhere = True
        elif found := _REMOVE.search(sentence):
            self._remove(lambda word, value: word.lstrip("-").split("=")[0] == found[1] or _SHORT.get(word) == found[1])
        elif found := _ADD.search(sentence):
            self.policy.setdefault(found[2], ["none"] if found[2] == "allow_networks" else []).append(found[1])
        elif found := _SET.search(sentence):
            value: Any = {"true": True}.get(found[3], found[3])
            self.policy[found[1]] = int(float(value)) if found[1] in ("max_cpus", "max_pids") else value
        elif found := _WRITE.search(sentence) or _SUCH_AS.search(sentence):
            self._replace(sentence, found[1])
        elif "leave it out" in sentence or "; remove it" in sentence:
            # What is left out is named first.
            named = re.findall(_QUOTED, sentence)
            self._remove(lambda word, value: any(name in re.split("[:=,]", value) for name in named))
        elif found := re.search(r"write (\d+m) of memory", sentence):
            self.options += ["--memory", found[1]]
        elif "does not exist; make it" not in sentence:
            raise AssertionError(f"nobody knows what to do about: {sentence}")

    def _remove(self, meant: Callable[[str, str], bool]) -> None:
        kept: list[str] = []
        words = self.options
        while words:
            taken, words = words[: _extent(words)], words[_extent(words) :]
            if not meant(taken[0], taken[-1]):
                kept += taken
        self.options = kept

    def _replace(self, sentence: str, new: str) -> None:
        """Put a new value in the place of the one that the sentence shows, or of the mount with the same target."""
        old = re.findall(_QUOTED, sentence)[0]
        named = re.search(r"target=([^,]+)|^\$\{SKILL_WORKDIR\}:([^:]+)", new)
        target = (named[1] or named[2]) if named else new
        matches = ([old], [target, f"={target}"], [old])
        for exact, wanted in zip((True, False, False), matches, strict=True):
            for index, word in enumerate(self.options):
                parts = [word] if exact else [*re.split("[:=,]", word), word.rpartition("=")[2]]
                if any(one in parts for one in wanted) or (not exact and old != new and old in word):
                    self.options[index] = new
                    return


_SHORT = {"-d": "detach", "-p": "publish"}


def _extent(words: list[str]) -> int:
    """How many words the first option takes."""
    name = words[0].lstrip("-")
    is_alone = "=" in words[0] or name in SWITCHES or re.fullmatch("-[itd]+", words[0]) is not None
    return 1 if is_alone else 2
