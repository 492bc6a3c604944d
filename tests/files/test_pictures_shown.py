"""Pictures as models are shown them: small enough, upright and whole, by what is in the sandbox."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateways import GatewayFactory
from taskcell.errors import FileRefused
from taskcell.files.answers import FileBytes
from taskcell.files.limits import MAX_PICTURE
from taskcell.files.pictures import look_at_picture
from taskcell.files.showing import parse_drawn
from taskcell.files.store import Target
from taskcell.model import Status, ToolCall

TARGET = Target("/workspace/a.png", "a.png")
#: Pictures made by Pillow: each name with its sides, its mode, and how it is saved.
MAKE = r"""
from PIL import Image
def save(name, width, height, mode="RGB", colour=None, **options):
    Image.new(mode, (width, height), colour or 0).save(name, **options)
exif = Image.Exif()
exif[0x0112] = 6
save("small.png", 40, 20)
save("wide.png", 3000, 1000, colour="red")
save("long.jpg", 500, 9000)
save("turned.jpg", 400, 200, exif=exif)
save("turned.png", 400, 200, exif=exif)
save("clear.webp", 2500, 100, "RGBA", (1, 2, 3, 4))
save("clear.gif", 2500, 100, "P", transparency=0)
save("grey.png", 2500, 100, "I;16", 65535)
save("ink.jpg", 2500, 100, "CMYK")
save("camera.jpg", 12000, 9000, "L")
save("poster.png", 9000, 8000, "1")
Image.effect_noise((1500, 1500), 100).convert("RGB").save("noise.png")
whole = bytearray(open("noise.png", "rb").read())
at = len(whole) // 2
start = whole.rindex(b"IDAT", 0, at) - 4
import struct, zlib
size = struct.unpack_from(">I", whole, start)[0]
whole[at:at + 9] = bytes(9)
struct.pack_into(">I", whole, start + 8 + size, zlib.crc32(whole[start + 4:start + 8 + size]))
open("damaged.png", "wb").write(whole)
"""
#: What is shown of each: its type, its sides, and whether a note says that it is not as it is stored.
SHOWN = {
    "small.png": ("image/png", (40, 20), False),
    "wide.png": ("image/png", (2000, 667), True),
    "long.jpg": ("image/jpeg", (111, 2000), True),
    "turned.jpg": ("image/jpeg", (200, 400), True),
    "turned.png": ("image/png", (200, 400), True),
    "clear.webp": ("image/png", (2000, 80), True),
    "clear.gif": ("image/png", (2000, 80), True),
    "grey.png": ("image/png", (2000, 80), True),
    "ink.jpg": ("image/jpeg", (2000, 80), True),
    "camera.jpg": ("image/jpeg", (2000, 1500), True),
    "noise.png": ("image/jpeg", (1500, 1500), True),
}


@pytest.mark.anyio
@pytest.mark.engine
async def test_a_picture_is_shown_upright_and_as_small_as_every_provider_takes_it(gateway: GatewayFactory) -> None:
    async with gateway() as gw:
        made = await gw.call(ToolCall("local", "terminal", {"command": "python3 -", "stdin": MAKE}))
        assert (made.exit_code, made.stdout) == (0, "")
        for name, (mime, sides, is_new) in SHOWN.items():
            report = await gw.call(ToolCall("local", "read_file", {"path": name}))
            answer = report.answer
            assert isinstance(answer, FileBytes), name
            looked = look_at_picture(answer.data, mime)
            assert (answer.mime, (looked.width, looked.height), looked.orientation) == (mime, sides, 1), name
            assert (len(answer.data) <= MAX_PICTURE, bool(answer.notes)) == (True, is_new), (name, answer.notes)
        assert report.notes[-1].startswith("The file is 1500x1500 pixels and ")
        for name, words in (("poster.png", "9000x8000 pixels"), ("damaged.png", "it is broken")):
            with pytest.raises(FileRefused, match=words) as refused:
                await gw.call(ToolCall("local", "read_file", {"path": name}))
            assert "image_convert" in str(refused.value)


@pytest.mark.anyio
@pytest.mark.engine
async def test_what_a_task_runs_is_not_ended_for_want_of_memory_to_decode(gateway: GatewayFactory) -> None:
    async def call(tool: str, **arguments: object) -> Any:
        return await gw.call(ToolCall("local", tool, arguments))

    make = "from PIL import Image; Image.new('1', (9000, 7000)).save('large.png')"
    hold = "import time; held = bytearray(150_000_000); print('held', flush=True); time.sleep(600)"
    async with gateway('[terminal]\nmemory = "300m"\n[workspace]\nsize = "8m"\n') as gw:
        assert (await call("terminal", command=f'python3 -c "{make}"')).exit_code == 0
        held = await call("terminal", command=f'python3 -c "{hold}"', background=True)
        await call("process", action="wait", process_id=held.process_id, until="held", wait=60)
        with pytest.raises(FileRefused, match="more memory than the sandbox has left"):
            await call("read_file", path="large.png")
        assert (await call("process", action="poll", process_id=held.process_id)).result.status is Status.RUNNING


@pytest.mark.parametrize(
    "said",
    [
        "", "{", "[]", "5", "null", "[" * 10_000, '{"sides": [1, 2]}', '{"sides": 5, "size": 3, "turned": false}',
        '{"sides": [1, 1e999], "size": 3, "turned": 0}', '{"sides": [0, 5], "size": 3, "turned": false}',
        '{"sides": [1, 2, 3], "size": 3, "turned": false}', '{"sides": [1, 2], "size": 4, "turned": false}',
    ],
)  # fmt: skip
def test_a_reply_that_a_hostile_sandbox_wrote_is_refused(said: str) -> None:
    with pytest.raises(FileRefused, match="garbled"):
        parse_drawn(TARGET, said.encode() + b"\nabc")


def test_words_of_a_hostile_sandbox_are_bounded_and_on_one_line() -> None:
    refused = parse_drawn(TARGET, json.dumps({"refused": "a\n\x1b[31m" + "b" * 900}).encode()).refused
    assert len(refused) < 300
    assert refused.isprintable()
