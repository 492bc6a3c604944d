"""Shows a Jupyter notebook as its cells."""

from __future__ import annotations

import json
from typing import Any

#: Characters of one output that are shown.
_OUTPUT_CHARS = 1000


def cells_as_text(data: bytes) -> str | None:
    """Return a notebook (nbformat 3 to 5) as text, a line such as `# %% [cell 2: code]` before each cell; else None."""
    try:
        notebook = json.loads(data)
        cells = notebook["cells"] if "cells" in notebook else notebook["worksheets"][0]["cells"]
        return "".join(_cell(number, cell) for number, cell in enumerate(cells, 1))
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
        return None


def _cell(number: int, cell: dict[str, Any]) -> str:
    text = f"# %% [cell {number}: {cell['cell_type']}]\n{_ended(_joined(cell.get('source', cell.get('input', ''))))}"
    for output in cell.get("outputs", ()):
        shown = _output(output)
        cut = f"… [{len(shown) - _OUTPUT_CHARS:,} characters more]" if len(shown) > _OUTPUT_CHARS else ""
        text += f"# [output]\n{_ended(shown[:_OUTPUT_CHARS] + cut)}"
    return text


def _output(output: dict[str, Any]) -> str:
    if output.get("output_type") == "error":
        return f"{output.get('ename', '')}: {output.get('evalue', '')}"
    if "text" in output:
        return _joined(output["text"])
    data = output.get("data", {})
    return _joined(data["text/plain"]) if "text/plain" in data else f"[{', '.join(sorted(data))}]"


def _joined(source: Any) -> str:
    return source if isinstance(source, str) else "".join(map(str, source))


def _ended(text: str) -> str:
    return text if not text or text.endswith("\n") else text + "\n"
