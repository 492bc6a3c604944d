"""What comes of a shell on a terminal, whatever its programs write."""

from __future__ import annotations

from taskcell.integrations.terminal_output import OUTPUT_LIMIT, REPORT_LIMIT, Report, TerminalOutput


def test_a_report_in_pieces_is_one_and_anything_else_is_none() -> None:
    found = TerminalOutput()
    for piece in (b"12 ", b"0 7\n13 1", b"30 7\nscript: words\n", b"9" * 5000 + b" 0 7\n", b"-1 0 7\n14 1000 7\n"):
        found.add_report(piece)
    assert found.reports == {12: Report(0, 7), 13: Report(130, 7)}


def test_what_never_ends_is_not_held() -> None:
    found = TerminalOutput()
    for _ in range(40):
        found.add(b"x" * (1 << 20))
        found.add_report(b"x" * (1 << 20))
    assert len(found.output) <= 2 * OUTPUT_LIMIT
    assert len(found.unread) <= REPORT_LIMIT


def test_output_is_taken_without_control_sequences_and_every_byte_has_a_text() -> None:
    found = TerminalOutput()
    found.add(b"\x1b[1mbold\x1b[0m\r\n\xff\nPROMPT rest")
    prompt = found.output.index(b"PROMPT")
    assert found.take(prompt, prompt + len("PROMPT ")) == "bold\n\\xff\n"
    assert found.output == b"rest"
