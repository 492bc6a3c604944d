"""Lines of keys in a TOML file."""

import pytest

from taskcell.config.toml_source import Fault, TomlSource, UnreadableToml, dotted

TEXT = '''# a comment
top = 1

[a.b]
"quoted key" = "x"   # the value is [not a table]
list = [
  "one",
  "[two]",
]
text = """
[a.c]
fake = 1
"""
inline = { x = 1, y = { z = 2 } }
dot.ted = 3

[[rules]]
name = "first"
[[rules]]
name = "second"
[rules.sub]
deep = true
'''


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "x.toml"
    path.write_text(TEXT)
    return TomlSource.read(path)


@pytest.mark.parametrize(
    ("key", "line"),
    [
        (("top",), 2),
        (("a", "b"), 4),
        (("a", "b", "quoted key"), 5),
        (("a", "b", "list"), 6),
        (("a", "b", "list", 1), 6),
        (("a", "b", "text"), 10),
        (("a", "b", "inline", "y", "z"), 14),
        (("a", "b", "dot", "ted"), 15),
        (("rules", 0, "name"), 18),
        (("rules", 1, "name"), 20),
        (("rules", 1, "sub", "deep"), 22),
        (("a", "b", "missing"), 4),
        (("a", "c"), 4),
        (("nowhere",), None),
    ],
)
def test_each_key_is_found_on_its_line(source, key, line):
    assert source.line(key) == line


def test_a_fault_is_told_with_file_line_and_key(source):
    fault = Fault(("a", "b", "quoted key"), "is wrong")
    assert source.describe(fault) == f"{source.path}:5: a.b.'quoted key': is wrong"
    assert source.describe(Fault(("nowhere",), "is missing")) == f"{source.path}: nowhere: is missing"


def test_a_key_is_written_as_in_toml():
    assert dotted(("skills", "x", "docker", "volumes", 0)) == "skills.x.docker.volumes[0]"


def test_windows_line_ends_and_a_byte_order_mark_do_not_shift_the_lines(tmp_path):
    path = tmp_path / "w.toml"
    path.write_bytes(b"\xef\xbb\xbf[a]\r\nb = 1\r\nc = [\r\n1]\r\nd = 2\r\n")
    assert TomlSource.read(path).line(("a", "d")) == 5


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"a = 1\nb = = 2\n", ":2: is not valid TOML"),
        (b"a = [1,\n", ":2: is not valid TOML"),
        (b"a = 1\na = 2\n", ":2: is not valid TOML"),
        (b"a = 1\nb = '\xff'\n", ":2: is not UTF-8"),
        (b"a = " + b"[" * 20_000, "nested too deeply"),
        (b"a = " + b"1" * 5_000, "a number that is too long"),
        (b"#" * 2_000_000, "is larger than"),
    ],
)
def test_an_unreadable_file_says_where(tmp_path, raw, says):
    path = tmp_path / "bad.toml"
    path.write_bytes(raw)
    with pytest.raises(UnreadableToml) as caught:
        TomlSource.read(path)
    assert says in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_missing_file_is_told_by_name(tmp_path):
    with pytest.raises(UnreadableToml, match=r"no\.toml: cannot be read"):
        TomlSource.read(tmp_path / "no.toml")
