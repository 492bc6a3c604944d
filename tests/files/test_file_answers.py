"""The file tools and the workspace's resources as MCP clients see them."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from mcp.client.client import Client
from mcp.shared.exceptions import MCPError
from mcp_types import (
    BlobResourceContents,
    CallToolResult,
    ImageContent,
    TextContent,
    TextResourceContents,
)

from asking import ASKED, fields_of, text_of
from gateways import GatewayFactory
from serving import serving
from taskcell.config.settings import Settings
from taskcell.mcp.server import build_server
from taskcell.tools.catalog import build_tools

pytestmark = pytest.mark.anyio

LOCAL = """
manifests = []
[engine]
kind = "local"
[limits]
output_chars = 2000
[[policy.rules]]
name = "no-keys"
tool = "read_file"
command = '/keys$'
effect = "deny"
reason = "No."
"""
PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
FILE_TOOLS = ("read_file", "write_file", "edit_file", "list_files", "search")
FILES = "taskcell://tasks/{}/files/{}"


@pytest.fixture(params=["legacy", "2026-07-28"])
async def client(request: pytest.FixtureRequest, gateway: GatewayFactory) -> AsyncIterator[Client]:
    async with (
        gateway(LOCAL, engine="local") as gw,
        Client(build_server(gw), mode=request.param) as client,
    ):
        yield client


async def call(client: Client, name: str, **arguments: Any) -> CallToolResult:
    """A call that must succeed."""
    result = await client.call_tool(name, arguments)
    assert not result.is_error, result.content
    assert result.structured_content is None
    return result


async def fields(client: Client, name: str, **arguments: Any) -> dict[str, Any]:
    """A call's structured content, checked against the schema that the tool declares."""
    found = fields_of(await client.call_tool(name, arguments, meta=ASKED))
    Draft202012Validator(build_tools(Settings(), [])[name].output_schema).validate(found)
    return found


async def refused(client: Client, name: str, **arguments: Any) -> str:
    result = await client.call_tool(name, arguments)
    assert result.is_error
    (content,) = result.content
    assert isinstance(content, TextContent)
    return content.text


async def read(client: Client, path: str, task: str = "t") -> TextResourceContents | BlobResourceContents:
    (contents,) = (await client.read_resource(FILES.format(task, path))).contents
    return contents


async def test_the_tools_say_what_they_read_and_what_they_change(client: Client) -> None:
    tools = {tool.name: tool for tool in (await client.list_tools()).tools}
    hints = {name: tool.annotations for name, tool in tools.items() if name in FILE_TOOLS}
    flags = {name: (h.read_only_hint, h.destructive_hint, h.idempotent_hint) for name, h in hints.items() if h}
    assert flags == {
        "read_file": (True, False, True),
        "write_file": (False, True, True),
        "edit_file": (False, True, False),
        "list_files": (True, False, True),
        "search": (True, False, True),
    }
    assert [tools[name].input_schema.get("required", []) for name in flags] == [
        [], ["path", "content"], ["path"], [], ["pattern"]
    ]  # fmt: skip


async def test_text_is_numbered_for_the_model_and_plain_in_the_structure(client: Client) -> None:
    written = await call(client, "write_file", path="a.txt", content="one\ntwo\nthree\n")
    assert text_of(written) == "[Created '/workspace/a.txt': 14 bytes]"
    result = await call(client, "read_file", path="a.txt", offset=2, limit=1)
    assert text_of(result) == "2\ttwo\n[Lines 2 to 2 of 3; continue with offset=3]"
    assert (await fields(client, "read_file", path="a.txt", offset=2, limit=1))["text"] == "two\n"
    edited = await call(client, "edit_file", path="a.txt", old="e", new="E", count=3)
    assert text_of(edited) == "1\tonE\n2\ttwo\n3\tthrEE\n[Changed 3 places in '/workspace/a.txt', at lines 1, 3, 3]"
    listed = await call(client, "list_files")
    assert text_of(listed).endswith("a.txt\n[1 entry]")


async def test_an_answer_stays_within_the_configured_characters(client: Client) -> None:
    await call(client, "write_file", path="a", content="é" * 90 + "\n" + "a line of text\n" * 5000)
    assert 1000 < len(text_of(await call(client, "read_file", path="a"))) <= 2000
    asked = await fields(client, "read_file", path="a")
    assert asked["truncated"]
    assert len(json.dumps(asked)) <= 2000


async def test_a_picture_is_a_picture(client: Client) -> None:
    encoded = base64.b64encode(PIXEL).decode()
    await call(client, "write_file", path="p.dat", content=encoded, encoding="base64")
    result = await call(client, "read_file", path="p.dat")
    picture, words = result.content
    assert isinstance(picture, ImageContent)
    assert (picture.mime_type, picture.data) == ("image/png", encoded)
    assert isinstance(words, TextContent)
    assert words.text == f"['/workspace/p.dat': image/png, 1x1 pixels, {len(PIXEL)} bytes]"


async def test_what_is_refused_is_one_sentence_that_says_what_to_do(client: Client) -> None:
    await call(client, "write_file", path="a", content="x\nx\n")
    assert "`list_files` shows what is there" in await refused(client, "read_file", path="b")
    assert "count=2" in await refused(client, "edit_file", path="a", old="x", new="y")
    assert "is a folder" in await refused(client, "read_file", path=".")
    assert "'read_file' needs 'path'" in await refused(client, "read_file")
    assert "'offset' must be at least 1" in await refused(client, "read_file", path="a", offset=0)
    assert "did you mean 'content'" in await refused(client, "write_file", path="a", contents="x")
    assert "not an encoding" in await refused(client, "write_file", path="a", content="x", encoding="latin-42")
    assert "control characters" in await refused(client, "read_file", path="a", task_id="a\nb")
    assert "no-keys" in await refused(client, "read_file", path="keys")
    assert "base64" in await refused(client, "write_file", path="a", content="%", encoding="base64")


async def test_the_template_is_listed(client: Client) -> None:
    templates = (await client.list_resource_templates()).resource_templates
    assert "taskcell://tasks/{task_id}/files/{+path}" in [template.uri_template for template in templates]


async def test_files_are_resources_of_their_kind(client: Client) -> None:
    data = b"\0\1\2\xff"
    for path, content in (("d/text é.txt", "grün\n".encode()), ("d/p", PIXEL), ("d/x", data), ("d/latin", b"\xfc")):
        encoded = base64.b64encode(content).decode()
        await call(client, "write_file", path=path, content=encoded, encoding="base64", task_id="t/1")
    text = await read(client, "d/text%20%C3%A9.txt", "t%2F1")
    assert isinstance(text, TextResourceContents)
    assert (text.text, text.mime_type) == ("grün\n", "text/plain")
    kinds = {}
    for path in ("d/p", "d/x", "d/latin"):
        blob = await read(client, path, "t%2F1")
        assert isinstance(blob, BlobResourceContents)
        kinds[path] = (blob.mime_type, base64.b64decode(blob.blob))
    binary = "application/octet-stream"
    assert kinds == {"d/p": ("image/png", PIXEL), "d/x": (binary, data), "d/latin": (binary, b"\xfc")}
    folder = await read(client, "d", "t%2F1")
    assert isinstance(folder, TextResourceContents)
    assert [line.split()[-1] for line in folder.text.splitlines()] == ["latin", "p", "é.txt", "x"]
    root = await read(client, "", "t%2F1")
    assert isinstance(root, TextResourceContents)
    assert root.text.endswith("d/\n")


async def test_a_resource_that_is_not_there_or_not_the_tasks_is_not_found(client: Client) -> None:
    await call(client, "write_file", path="a", content="x", task_id="other")
    legacy = client.protocol_version != "2026-07-28"
    for path in ("a", "missing/b", "../../etc/passwd", "..%2F..%2Fetc%2Fpasswd", "%2E%2E/x"):
        with pytest.raises(MCPError) as caught:
            await read(client, path)
        assert caught.value.error.code == (-32002 if legacy else -32602), path
    with pytest.raises(MCPError) as caught:
        await client.read_resource("taskcell://tasks/t/nothing/a")
    assert caught.value.error.code == (-32002 if legacy else -32602)


async def test_a_resource_is_bounded_and_judged_as_read_file_is(client: Client) -> None:
    await call(client, "write_file", path="large", content="x" * (4 << 20), task_id="t")
    await call(client, "write_file", path="keys", content="x", task_id="t")
    whole = await read(client, "large")
    assert isinstance(whole, TextResourceContents)
    assert len(whole.text) == 4 << 20
    await client.call_tool("terminal", {"command": "printf y >> large", "task_id": "t"})
    with pytest.raises(MCPError, match="`read_file` with 'offset'"):
        await read(client, "large")
    with pytest.raises(MCPError, match="no-keys"):
        await read(client, "keys")


@pytest.mark.engine
@pytest.mark.parametrize("mode", ["legacy", "2026-07-28"])
async def test_a_client_of_the_real_server_works_on_files(tmp_path: Path, mode: str) -> None:
    async with serving(tmp_path, "manifests = []\n", mode) as (client, _):
        await call(client, "write_file", path="p.png", content=base64.b64encode(PIXEL).decode(), encoding="base64")
        picture = (await call(client, "read_file", path="p.png")).content[0]
        assert isinstance(picture, ImageContent)
        await call(client, "write_file", path="notes/a.md", content="# Title\r\ntext\r\n")
        await call(client, "edit_file", path="notes/a.md", old="Title\ntext", new="Name\nwords")
        ran = await client.call_tool("terminal", {"command": "od -c notes/a.md | head -n 2; ls -la /workspace"})
        assert "N   a   m   e  \\r  \\n   w" in text_of(ran)
        assert "agent" in text_of(ran)
        blob = await read(client, "p.png", "default")
        assert isinstance(blob, BlobResourceContents)
        assert base64.b64decode(blob.blob) == PIXEL
        assert text_of(await call(client, "list_files", glob="**/*.md")).endswith("notes/a.md\n[1 entry]")
