"""A picture that a skill made is shown to the model as a picture."""

from __future__ import annotations

import base64
import struct
from typing import Any

import pytest
from mcp.client.client import Client
from mcp_types import ImageContent

from media import png
from skill_task import MANIFESTS
from taskcell.mcp.server import build_server

pytestmark = [pytest.mark.anyio, pytest.mark.engine]


async def test_a_picture_that_a_skill_wrote_is_shown_as_one(skill_images_built: None, gateway: Any) -> None:
    async with gateway(toml=f'manifests = ["{MANIFESTS}"]') as gw, Client(build_server(gw)) as client:
        drawn = base64.b64encode(png(64, 32, lambda x, y: (4 * x, 8 * y, 0))).decode()
        await client.call_tool("write_file", {"path": "in.png", "content": drawn, "encoding": "base64"})
        made = await client.call_tool("image_convert", {"input": "in.png", "output": "small.jpg", "resize": "16x"})
        assert not made.is_error, made.content
        shown = await client.call_tool("read_file", {"path": "small.jpg"})
    picture = shown.content[0]
    assert isinstance(picture, ImageContent)
    assert picture.mime_type == "image/jpeg"
    data = base64.b64decode(picture.data)
    start = data.index(b"\xff\xc0")  # the frame's header: its height and width
    assert struct.unpack_from(">HH", data, start + 5)[1] == 16
