"""The note for a command that calls sudo in a sandbox that has none."""

from __future__ import annotations

import re

from taskcell.model import Profile

#: Characters of a command that are read; in a longer script a later sudo gets no note.
_MOST_TEXT = 4096
#: What is wrong where sudo did not take the password.
REFUSED = "sudo refuses its password"
_CONTINUED = re.compile(r"\\\n")
#: A here-document is input, not commands. `<<<` begins none, nor does a shift in `((…))`.
_DOCUMENT = re.compile(
    r"(?<!<)<<-?[ \t]*[\"'\\]?(?P<end>[\w.-]{1,64})[\"']?(?![^\n]*\)\))(?P<rest>[^\n]*)\n"
    r"(?:[^\n]*\n)*?(?:[ \t]*(?P=end)[ \t]*(?=\n|\Z)|[^\n]*\Z)"
)
#: Quoted text is no command either, unless a shell runs it (`sh -c '…'`, `eval '…'`) or it substitutes one (`"$(…)"`).
_QUOTED = re.compile(r"""(?<!c )(?<!eval )(?:'[^']*'|"[^"$`]*")""")
#: Spans no line: a newline begins a command itself.
_CALL = re.compile(
    r"""
    (?: ^ | [\n;&|({`!] | \s-\w*c\s+["'] | \beval\s+["'] | \s-(?:exec|ok)(?:dir)?\s )   # a command begins here
    [ \t]*
    (?:                                                             # ... or still begins after one of these words,
        (?:builtin|command|coproc|do|elif|else|env|eval|exec|if|ionice|nice|nohup|setsid|stdbuf|then|time|timeout
           |until|watch|while|xargs)[ \t]+
        | -(?!v\s)[^\s;&|()`]+[ \t]+ | [\d.]+[smhd]?[ \t]+           # its options (but `command -v` only asks), numbers
        | \w+=[^\s;&|()`]*[ \t]+                                    # and variables
    )*
    (?:[\w./-]*/)? sudo (?:edit)? (?! [\w.=/-] | [ \t]*= )
    """,
    re.VERBOSE,
)


def notes_on_sudo(profile: Profile, text: str, problem: str, *, is_new: bool = False) -> list[str]:
    """One sentence if a command calls sudo and cannot have it, judged by the command's own words alone.

    Arguments:
        text: the command as a person reads it.
        problem: why sudo cannot work though the profile has it; empty if it works.
        is_new: it became known while the command ran, so that the command has met it whatever its words are.
    """
    if (profile.sudo and not problem) or not (is_new or calls_sudo(text)):
        return []
    if problem == REFUSED:
        return [
            "sudo refuses the password that this sandbox has. If a command has changed the user's password, use "
            "`sandbox` with the action 'reset'; if none has, the operator must give [sudo] the password that the "
            "image's user has."
        ]
    if problem:
        return [f"sudo cannot work in this sandbox: {problem}. Ask the operator for an image with sudo and that user."]
    table = "[terminal]" if profile.kind == "terminal" else f"[skills.{profile.name}.docker]"
    return [
        f"The profile '{profile.name}' has no sudo. Work without root, or ask the operator to set sudo = true in "
        f"{table} and allow_sudo = true in [policy]."
    ]


def calls_sudo(text: str) -> bool:
    """Whether `sudo` stands where a command begins. A script, alias or variable that calls it is not seen."""
    if "sudo" not in text:
        return False
    commands = _DOCUMENT.sub(r"\g<rest>", _CONTINUED.sub(" ", text[:_MOST_TEXT]))
    return _CALL.search(_QUOTED.sub("''", commands)) is not None
