"""`pandoc_*` and `pdf_*`: documents."""

from __future__ import annotations

import io
import zipfile

import pytest

from media import pdf, ppm_pixels
from skill_task import Task

pytestmark = [pytest.mark.engine, pytest.mark.anyio]

REPORT = "---\ntitle: Sales\n---\n\n# First quarter\n\nSales *grew* in **Lisbon**.\n\n| a | b |\n|---|---|\n| 1 | 2 |\n"


async def test_markdown_becomes_a_word_document_and_can_be_read_back(task: Task) -> None:
    await task.put("report.md", REPORT)
    said = await task.good("pandoc_convert", input="report.md", output="out/report.docx", options=["--toc"])
    assert said.startswith("Wrote out/report.docx (")
    with zipfile.ZipFile(io.BytesIO(await task.get("out/report.docx"))) as document:
        assert b"First quarter" in document.read("word/document.xml")
    text = await task.good("pandoc_read", input="out/report.docx")
    assert "# First quarter" in text
    assert "Sales *grew* in **Lisbon**." in text


async def test_a_document_is_shown_in_the_format_that_was_asked_for(task: Task) -> None:
    await task.put("page.txt", "<h1>Hello</h1><p>a <b>b</b></p>")
    text = await task.good("pandoc_read", input="page.txt", **{"from": "html", "to": "plain"})
    assert text.split() == ["Hello", "a", "b"]


@pytest.mark.parametrize("extension", ["odt", "epub", "html", "tex", "rst", "org", "pptx", "ipynb", "rtf"])
async def test_the_promised_formats_are_written(task: Task, extension: str) -> None:
    await task.put("report.md", REPORT)
    await task.good("pandoc_convert", input="report.md", output=f"report.{extension}")
    if extension not in ("pptx", "rtf"):
        assert "Lisbon" in await task.good("pandoc_read", input=f"report.{extension}", to="plain")


async def test_a_document_that_is_missing_or_a_format_that_does_not_exist_is_a_failure_in_words(task: Task) -> None:
    assert "does not exist" in await task.bad("pandoc_read", input="none.docx")
    await task.put("report.md", REPORT)
    complaint = await task.bad("pandoc_convert", input="report.md", output="x.docx", **{"from": "klingon"})
    assert "Unknown input format klingon" in complaint
    assert await task.files() == ["report.md"]


async def test_pdf_info_tells_the_pages_and_their_size(task: Task) -> None:
    await task.put("paper.pdf", pdf(["one", "two", "three"]))
    lines = dict(line.split(":", 1) for line in (await task.good("pdf_info", input="paper.pdf")).splitlines())
    assert (lines["Pages"].strip(), lines["Page size"].strip()) == ("3", "200 x 100 pts")


async def test_pdf_text_is_that_of_the_pages_asked_for(task: Task) -> None:
    await task.put("paper.pdf", pdf(["Hello world", "second page", "third page"]))
    assert "Hello world" in await task.good("pdf_text", input="paper.pdf")
    assert (await task.good("pdf_text", input="paper.pdf", first=2, last=2)).split() == ["second", "page"]
    indented = await task.good("pdf_text", input="paper.pdf", first=3, layout=True)
    assert "third page" in indented


async def test_pdf_pages_become_pictures_of_the_resolution_asked_for(task: Task) -> None:
    await task.put("paper.pdf", pdf(["one", "two", "three"]))
    said = await task.good("pdf_pages", input="paper.pdf", output="pages/p", first=2, dpi=144)
    assert [line.split()[1] for line in said.splitlines()] == ["pages/p-2.png", "pages/p-3.png"]
    assert "PNG, 400x200" in await task.good("image_identify", inputs=["pages/p-2.png"])
    assert "exists already" in await task.bad("pdf_pages", input="paper.pdf", output="pages/p", first=2, last=2)
    await task.good("pdf_pages", input="paper.pdf", output="pages/p", last=1, format="jpeg")
    assert "pages/p-1.jpg" in await task.files()


async def test_the_pictures_in_a_pdf_are_saved(task: Task) -> None:
    await task.put("paper.pdf", pdf(["one"], picture=(255, 0, 0)))
    await task.good("pdf_images", input="paper.pdf", output="figure")
    await task.good("image_convert", input="figure-000.png", output="figure.ppm")
    assert ppm_pixels(await task.get("figure.ppm")) == (4, 4, b"\xff\x00\x00" * 16)


async def test_what_is_no_pdf_is_a_failure_in_the_programs_words(task: Task) -> None:
    await task.put("paper.pdf", "plain text")
    for tool, arguments in (("pdf_info", {}), ("pdf_text", {}), ("pdf_pages", {"output": "p"})):
        assert "PDF" in await task.bad(tool, input="paper.pdf", **arguments)
