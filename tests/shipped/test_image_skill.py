"""`image_*`: pictures with ImageMagick."""

from __future__ import annotations

import struct
import zlib

import pytest

from media import Pixel, png, ppm_pixels
from skill_task import Task

pytestmark = [pytest.mark.engine, pytest.mark.anyio]


def quarters(x: int, y: int) -> Pixel:
    """Red at the top left, green, blue, white at the bottom right, of a picture of 64 by 48."""
    return ((255, 0, 0) if x < 32 else (0, 255, 0)) if y < 24 else ((0, 0, 255) if x < 32 else (255, 255, 255))


PICTURE = png(64, 48, quarters)


async def test_identify_tells_format_size_depth_and_colours_of_each_picture(task: Task) -> None:
    await task.put("a_b.png", PICTURE)
    await task.put("clear.png", png(3, 2, lambda x, y: (0, 0, 0, 0)))
    lines = (await task.good("image_identify", inputs=["a_b.png", "clear.png"])).splitlines()
    assert [line.rpartition(", ")[0] for line in lines] == [
        "a_b.png: PNG, 64x48 pixels, 8 bits, sRGB",
        "clear.png: PNG, 3x2 pixels, 8 bits, sRGB",
    ]


async def test_convert_fits_a_picture_into_a_size_and_writes_the_format_of_the_extension(task: Task) -> None:
    await task.put("in.png", PICTURE)
    said = await task.good("image_convert", input="in.png", output="new/small.jpg", resize="32x32", quality=80)
    assert said.startswith("Wrote new/small.jpg (")
    assert "JPEG, 32x24 pixels" in await task.good("image_identify", inputs=["new/small.jpg"])
    assert await task.files() == ["in.png", "new/small.jpg"]


async def test_convert_crops_before_it_resizes_and_turns(task: Task) -> None:
    await task.put("in.png", PICTURE)
    await task.good("image_convert", input="in.png", output="out.ppm", crop="32x24+32+0", resize="8x", rotate=90)
    width, height, pixels = ppm_pixels(await task.get("out.ppm"))
    assert (width, height) == (6, 8)
    assert set(zip(*[iter(pixels)] * 3, strict=True)) == {(0, 255, 0)}


async def test_convert_puts_a_background_behind_what_is_transparent_and_runs_further_operations(task: Task) -> None:
    await task.put("clear.png", png(2, 2, lambda x, y: (10, 20, 30, 0)))
    await task.good("image_convert", input="clear.png", output="white.ppm", background="#ffff00")
    assert ppm_pixels(await task.get("white.ppm"))[2] == b"\xff\xff\x00" * 4
    await task.good("image_convert", input="white.ppm", output="negated.ppm", operations=["-negate"])
    assert ppm_pixels(await task.get("negated.ppm"))[2] == b"\x00\x00\xff" * 4


async def test_convert_to_grayscale_makes_all_channels_equal(task: Task) -> None:
    await task.put("in.png", PICTURE)
    await task.good("image_convert", input="in.png", output="gray.ppm", operations=["-colorspace", "Gray", "-strip"])
    pixels = ppm_pixels(await task.get("gray.ppm"))[2]
    assert all(red == green == blue for red, green, blue in zip(*[iter(pixels)] * 3, strict=True))


#: Each extension that an output may have, with ImageMagick's name of what is written.
PROMISED = {
    "png": "PNG", "jpg": "JPEG", "JPEG": "JPEG", "gif": "GIF", "webp": "WEBP", "tif": "TIFF", "tiff": "TIFF",
    "bmp": "BMP", "ico": "ICO", "heic": "HEIC", "avif": "HEIC", "jp2": "JP2", "tga": "TGA", "pcx": "PCX",
    "ppm": "PPM", "pgm": "PGM", "pbm": "PBM", "pnm": "PPM", "pam": "PAM", "dds": "DDS",
}  # fmt: skip


@pytest.mark.parametrize("extension", PROMISED)
async def test_convert_writes_and_reads_the_formats_that_it_promises(task: Task, extension: str) -> None:
    await task.put("in.png", PICTURE)
    await task.good("image_convert", input="in.png", output=f"out.{extension}")
    said = await task.good("image_identify", inputs=[f"out.{extension}"])
    assert f": {PROMISED[extension]}, 64x48 pixels" in said


async def test_the_frames_of_an_animation_become_pictures(task: Task) -> None:
    await task.put("a.png", PICTURE)
    await task.put("b.png", png(64, 48, lambda x, y: (0, 0, 0)))
    await task.good("image_convert", input="a.png", output="two.gif", operations=["b.png"])
    assert (await task.good("image_identify", inputs=["two.gif"])).count("GIF, 64x48") == 2
    said = await task.good("image_convert", input="two.gif", output="frames/f.png")
    assert [line.split()[1] for line in said.splitlines()] == ["frames/f-0.png", "frames/f-1.png"]
    await task.good("image_convert", input="two.gif[1]", output="last.ppm")
    assert set(ppm_pixels(await task.get("last.ppm"))[2]) == {0}


async def test_an_output_that_is_there_is_kept_unless_overwrite_says_otherwise(task: Task) -> None:
    await task.put("in.png", PICTURE)
    await task.put("out.png", "precious")
    complaint = await task.bad("image_convert", input="in.png", output="out.png")
    assert complaint == "out.png exists already; choose another name, or set 'overwrite' to true to replace it.\n"
    assert await task.get("out.png") == b"precious"
    await task.good("image_convert", input="in.png", output="out.png", overwrite=True)
    assert (await task.get("out.png")).startswith(b"\x89PNG")


async def test_a_broken_picture_is_a_failure_that_leaves_what_was_there(task: Task) -> None:
    await task.put("broken.png", PICTURE[:60])
    await task.put("out.jpg", "precious")
    complaint = await task.bad("image_convert", input="broken.png", output="out.jpg", overwrite=True)
    assert "broken.png" in complaint
    assert await task.get("out.jpg") == b"precious"
    assert await task.files() == ["broken.png", "out.jpg"]


#: Coders that read other files, draw what a script says, or speak to the network; by prefix and by extension.
NO_PICTURES = (
    "mvg:script", "msl:script", "text:script", "label:@script", "@script", "https://host/a.png", "svg:script",
    "pdf:script", "ps:script", "inline:data", "caption:x", "script.svg", "script.msl",
)  # fmt: skip


@pytest.mark.parametrize("name", NO_PICTURES)
async def test_what_is_no_plain_picture_is_not_read(task: Task, name: str) -> None:
    svg = '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><rect width="9" height="9"/></svg>'
    for script in ("script", "script.svg", "script.msl"):
        await task.put(script, svg)
    complaint = await task.bad("image_convert", input=name, output="out.png")
    assert "not allowed" in complaint or "not authorized" in complaint
    assert "out.png" not in await task.files()
    assert "script" in await task.files()


async def test_a_montage_has_as_many_cells_in_a_row_as_asked(task: Task) -> None:
    for name in ("a.png", "b.png", "c.png"):
        await task.put(name, PICTURE)
    await task.good(
        "image_montage", inputs=["a.png", "b.png", "c.png"], output="sheet.png", columns=2, cell="40x30", gap=5
    )
    assert "100x80 pixels" in await task.good("image_identify", inputs=["sheet.png"])
    await task.good("image_montage", inputs=["a.png"], output="named.png", cell="40x30", label=True)
    assert "48x38 pixels" not in await task.good("image_identify", inputs=["named.png"])
    assert await task.files() == ["a.png", "b.png", "c.png", "named.png", "sheet.png"]


async def test_a_pattern_among_the_inputs_is_every_file_that_matches_unless_it_is_a_file(task: Task) -> None:
    for name in ("a.png", "b.png"):
        await task.put(name, PICTURE)
    assert (await task.good("image_identify", inputs=["*.png"])).count("PNG, 64x48") == 2
    await task.good("terminal", command="cp a.png '?.png'")
    assert (await task.good("image_identify", inputs=["?.png"])).startswith("?.png: PNG")


async def test_text_is_drawn_in_a_font_that_is_there(task: Task) -> None:
    await task.put("black.png", png(60, 30, lambda x, y: (0, 0, 0)))
    operations = ["-fill", "white", "-pointsize", "20", "-annotate", "+5+22", "Hello"]
    await task.good("image_convert", input="black.png", output="text.ppm", operations=operations)
    assert max(ppm_pixels(await task.get("text.ppm"))[2]) > 200


def plain_png(width: int, height: int) -> bytes:
    """A picture of one colour, made row by row."""
    packed = zlib.compressobj(1)
    rows = [packed.compress(b"\0" + b"\xc8\x64\x32" * width) for _ in range(height)] + [packed.flush()]
    parts = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), (b"IDAT", b"".join(rows)), (b"IEND", b"")
    )  # fmt: skip
    chunks = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


async def test_a_picture_of_128_million_pixels_is_made_smaller_and_a_larger_one_is_refused_unread(task: Task) -> None:
    await task.put("large.png", plain_png(11_313, 11_313))
    await task.good("image_convert", input="large.png", output="small.png", resize="800x800")
    await task.good("image_convert", input="large.png", output="turned.png", rotate=90, operations=["-negate"])
    assert "PNG, 800x800 pixels" in await task.good("image_identify", inputs=["small.png"])
    await task.put("larger.png", plain_png(12_000, 12_000))
    assert "resources exhausted" in await task.bad("image_convert", input="larger.png", output="x.png", resize="800x")
    assert "x.png" not in await task.files()
