"""Edit tasks as models set them, with the slips that they make, and a model that gets one answer to mend its edit with.

Each task has a file in some encoding, with some line ends and indentation, and a change of a few lines of it. The model
means the right lines and writes them with a slip. When its edit is refused, it tries once more: with the text that the
refusal quotes, with the lines that it shows, or, if it only says to read again, with what reading shows, where what
looks alike looks the same as before.
"""

from __future__ import annotations

import html
import json
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

#: Python's name, a byte order mark, and words of a language of that encoding.
FORMS = (
    ("utf-8", b"", "naïve “quoted”"),
    ("utf-8", b"\xef\xbb\xbf", "Grüße aus Köln"),
    ("ascii", b"", "plain words"),
    ("utf-16-le", b"\xff\xfe", "Überschrift"),
    ("utf-16-be", b"\xfe\xff", "これはテキスト"),
    ("cp932", b"", "これは日本語のテキストです"),
    ("gb18030", b"", "这是一个中文的配置文件"),
    ("koi8_r", b"", "это текст на русском языке"),
    ("cp1252", b"", "Grüße aus Köln"),
    ("latin-1", b"", "café à la crème"),
)
ENDS = ("lf", "crlf", "mixed")
INDENTS = ("    ", "\t")
#: Slips that a model cannot see when it reads the same text again.
UNSEEN = ("no-break blank", "curly quotes", "dash")


class Outcome(Enum):
    FIRST = "right at the first call"
    SECOND = "right after the one answer"
    FAILED = "refused twice"
    WRONG = "changed wrongly"


@dataclass(frozen=True, slots=True)
class Task:
    """One edit. `before` and `after` are the file's bytes; `old` and `new` what the model sends, with its slip."""

    slip: str
    form: str
    before: bytes
    after: bytes
    lines: tuple[str, ...]
    first: int
    last: int
    mark: str
    old: str
    new: str

    def changed(self, text: str) -> str:
        """The change that is meant, made on a text of the file."""
        return text.replace(self.mark, f"{self.mark}_done")


#: Makes one edit of the file at a path, as `edit_file` does, and returns the sentence of its refusal, or None.
EditFile = Callable[[str, str], str | None]


def play(task: Task, path: Path, edit: EditFile) -> Outcome:
    """What becomes of a task."""
    path.write_bytes(task.before)
    said = edit(task.old, task.new)
    if said is None:
        return Outcome.FIRST if path.read_bytes() == task.after else Outcome.WRONG
    if path.read_bytes() != task.before:
        return Outcome.WRONG
    again = _again(task, said)
    if again is None or edit(*again) is not None:
        return Outcome.FAILED if path.read_bytes() == task.before else Outcome.WRONG
    return Outcome.SECOND if path.read_bytes() == task.after else Outcome.WRONG


def _again(task: Task, said: str) -> tuple[str, str] | None:
    """What the model sends after it has read a refusal."""
    _, quoted, text = said.partition("as a JSON string: ")
    if quoted:
        exact = str(json.loads(text))
        return exact, task.changed(exact)
    if "count=" in said:
        context = "\n".join(task.lines[max(0, task.first - 2) : task.last + 1])
        return context, task.changed(context)
    shown = dict(re.findall(r"^(\d+)\t(.*)$", said, re.MULTILINE))
    there = [shown.get(str(number + 1)) for number in range(task.first, task.last + 1)]
    if all(line is not None for line in there):
        copied = "\n".join(map(str, there))
        return copied, task.changed(copied)
    # It reads the file again; a file that it cannot read it cannot copy from.
    if "is not in" not in said or task.slip in UNSEEN:
        return None
    copied = "\n".join(task.lines[task.first : task.last + 1])
    return copied, task.changed(copied)


def tasks(count: int, seed: int = 11) -> Iterator[Task]:
    luck = random.Random(seed)
    for number in range(count):
        form = FORMS[number % len(FORMS)]
        slip = list(SLIPS)[number // len(FORMS) % len(SLIPS)]
        yield _task(luck, form, ENDS[luck.randrange(3)], INDENTS[luck.randrange(2)], slip)


def _task(luck: random.Random, form: tuple[str, bytes, str], ends: str, indent: str, slip: str) -> Task:
    name, bom, words = form
    lines: list[str] = []
    for block in range(luck.randrange(4, 12)):
        lines += [
            f"def step_{block}(value, other):", f'{indent}"""{words} {block}: it is here."""',
            f'{indent}label = "value & {block} < other"', f"{indent}if value - other > {block}:",
            f"{indent * 2}return compute_total_{block}(value, other)", f"{indent}return None", "",
        ]  # fmt: skip
    block = luck.randrange(len(lines) // 7)
    first = 7 * block + luck.choice((1, 2, 3))
    last = first + luck.choice((2, 3, 1))
    mark = f"compute_total_{block}"
    first, last = min(first, 7 * block + 3), max(last, 7 * block + 4)
    if slip == "too little context":
        first = last = 7 * block + 5
        mark = "None"
    _put_in(slip, lines, first, last, name)
    line_ends = [{"lf": "\n", "crlf": "\r\n", "mixed": luck.choice(("\n", "\r\n"))}[ends] for _ in lines]
    true_old = "\n".join(lines[first : last + 1])
    true_new = true_old.replace(mark, f"{mark}_done")
    after = [*lines[:first], *true_new.split("\n"), *lines[last + 1 :]]
    old, new = SLIPS[slip](true_old, first), SLIPS[slip](true_new, first)

    def as_bytes(texts: list[str]) -> bytes:
        return bom + "".join(map("".join, zip(texts, line_ends, strict=True))).encode(name)

    kind = f"{name}{' BOM' if bom else ''}, {ends}, {'tab' if indent == chr(9) else 'blanks'}"
    return Task(slip, kind, as_bytes(lines), as_bytes(after), tuple(lines), first, last, mark, old, new)


def _put_in(slip: str, lines: list[str], first: int, last: int, encoding: str) -> None:
    """Put into the file what the model does not write, as far as its encoding can hold it."""
    for at in range(first, last + 1):
        line = lines[at]
        for wanted, plain, odd in (
            ("no-break blank", "value, ", "value,\u00a0"), ("curly quotes", '"', "\u201d"), ("dash", " - ", " \u2013 "),
            ("trailing blanks", "other)", "other)  "),
        ):  # fmt: skip
            changed = line.replace(plain, odd)
            if slip == wanted and _fits(changed, encoding):
                lines[at] = changed


def _fits(text: str, encoding: str) -> bool:
    try:
        return text.encode(encoding).decode(encoding) == text
    except UnicodeError:
        return False


def _numbered(text: str, first: int) -> str:
    return "\n".join(f"{number}\t{line}" for number, line in enumerate(text.split("\n"), first + 1))


def _without_a_line(text: str, _: int) -> str:
    lines = text.split("\n")
    left_out = next(at for at in range(len(lines) - 1, -1, -1) if "compute_total" not in lines[at])
    return "\n".join(lines[:left_out] + lines[left_out + 1 :])


#: What the model writes for a text of the file that begins at a line (from 0).
SLIPS: dict[str, Callable[[str, int], str]] = {
    "none": lambda text, _: text,
    "CRLF": lambda text, _: text.replace("\n", "\r\n"),
    "no-break blank": lambda text, _: text.replace("\u00a0", " "),
    "curly quotes": lambda text, _: text.replace("\u201d", '"').replace("\u201c", '"'),
    "dash": lambda text, _: text.replace("\u2013", "-"),
    "tabs and blanks": lambda text, _: text.replace("\t", "        ") if "\t" in text else text.replace("    ", "\t"),
    "one indentation less": lambda text, _: re.sub("^(\t|    )", "", text, flags=re.MULTILINE),
    "trailing blanks": lambda text, _: re.sub(" +$", "", text, flags=re.MULTILINE),
    "line numbers": _numbered,
    "escapes as text": lambda text, _: text.replace("\n", "\\n").replace("\t", "\\t").replace('"', '\\"'),
    "HTML's escapes": lambda text, _: html.escape(text, quote=False),
    "case": lambda text, _: text.replace("value", "Value"),
    "one wrong word": lambda text, _: text.replace("other", "others", 1),
    "a line left out": _without_a_line,
    "too little context": lambda text, _: text,
}


def replay(folder: Path, count: int, edit: Callable[[Path], EditFile]) -> dict[str, Counter[Outcome]]:
    """How many tasks ended how, for each slip."""
    found: dict[str, Counter[Outcome]] = {}
    for number, task in enumerate(tasks(count)):
        path = folder / f"task{number}.py"
        found.setdefault(task.slip, Counter())[play(task, path, edit(path))] += 1
    return found


def table(found: dict[str, Counter[Outcome]]) -> str:
    rows = [f"{slip:22} " + " ".join(f"{counts[outcome]:4}" for outcome in Outcome) for slip, counts in found.items()]
    total: Counter[Outcome] = sum(found.values(), Counter())
    return "\n".join([*rows, f"{'all':22} " + " ".join(f"{total[outcome]:4}" for outcome in Outcome)])
