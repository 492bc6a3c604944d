"""`search_*`: text and files of the workspace."""

from __future__ import annotations

import pytest

from skill_task import Task

pytestmark = [pytest.mark.engine, pytest.mark.anyio]


@pytest.fixture
async def tree(task: Task) -> Task:
    await task.put("src/app.py", "import os\n\ndef grand_total(x):\n    return x  # -v is no option\n")
    await task.put("src/app.js", "function grandTotal() {}\n")
    await task.put("notes.txt", "total: 3\nTOTAL: 4\na.b\n")
    await task.put(".git/config", "total\n")
    await task.put(".hidden", "total\n")
    return task


async def test_matches_come_with_path_and_line_in_order(tree: Task) -> None:
    said = await tree.good("search_text", pattern=r"\w+_total")
    assert said == "./src/app.py:3:def grand_total(x):\n"
    assert (
        await tree.good("search_text", pattern="total", glob="*.txt")
        == "./notes.txt:1:total: 3\n./notes.txt:2:TOTAL: 4\n"
    )
    names = await tree.good("search_text", pattern="total", names=True)
    assert names.split() == ["./.hidden", "./notes.txt", "./src/app.js", "./src/app.py"]


async def test_case_words_plain_text_context_and_count_are_as_asked(tree: Task) -> None:
    assert (
        await tree.good("search_text", pattern="total", case="case-sensitive", path="notes.txt")
        == "notes.txt:1:total: 3\n"
    )
    assert await tree.good("search_text", pattern="TOTAL", path="notes.txt") == "notes.txt:2:TOTAL: 4\n"
    assert await tree.good("search_text", pattern="a.b", fixed=True, path="notes.txt") == "notes.txt:3:a.b\n"
    assert await tree.good("search_text", pattern="grand", word=True) == "Nothing found.\n"
    assert "notes.txt-2-TOTAL: 4" in await tree.good("search_text", pattern="3$", context=1, path="notes.txt")
    assert await tree.good("search_text", pattern="total", max_count=1, path="notes.txt") == "notes.txt:1:total: 3\n"


async def test_a_pattern_that_looks_like_an_option_is_a_pattern(tree: Task) -> None:
    assert (await tree.good("search_text", pattern="-v")).startswith("./src/app.py:4:")
    assert await tree.good("search_text", pattern="--pre=sh") == "Nothing found.\n"


async def test_what_cannot_be_searched_is_a_failure_in_words(tree: Task) -> None:
    assert "unclosed group" in await tree.bad("search_text", pattern="(")
    assert "No such file" in await tree.bad("search_text", pattern="x", path="nowhere")


async def test_files_are_listed_by_pattern(tree: Task) -> None:
    assert (await tree.good("search_files")).split() == ["./.hidden", "./notes.txt", "./src/app.js", "./src/app.py"]
    assert (await tree.good("search_files", glob="*.{py,js}")).split() == ["./src/app.js", "./src/app.py"]
    assert (await tree.good("search_files", glob="!*.py", path="src")).split() == ["src/app.js"]
    assert await tree.good("search_files", glob="*.rs") == "Nothing found.\n"
