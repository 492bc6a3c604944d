"""Real input files, small and made here."""

from __future__ import annotations

import io
import math
import struct
import wave
import zlib
from collections.abc import Callable

Pixel = tuple[int, ...]


def png(width: int, height: int, pixel: Callable[[int, int], Pixel]) -> bytes:
    """A PNG; `pixel(x, y)` is (red, green, blue), with alpha as the fourth where the picture has it."""
    channels = len(pixel(0, 0))
    rows = b"".join(b"\0" + b"".join(bytes(pixel(x, y)) for x in range(width)) for y in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, 6 if channels == 4 else 2, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    )


def ppm_pixels(data: bytes) -> tuple[int, int, bytes]:
    """Width, height and colours of a binary PPM."""
    magic, width, height, _, pixels = data.split(maxsplit=4)
    assert magic == b"P6"
    return int(width), int(height), pixels


def tone(seconds: float, rate: int = 44100, channels: int = 2) -> bytes:
    """A WAV with a tone of 440 Hz."""
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(channels)
        out.setsampwidth(2)
        out.setframerate(rate)
        for index in range(int(seconds * rate)):
            sample = int(12000 * math.sin(2 * math.pi * 440 * index / rate))
            out.writeframesraw(struct.pack("<h", sample) * channels)
    return file.getvalue()


def video(width: int, height: int, frames: int, rate: int = 25) -> bytes:
    """An uncompressed video (Y4M) that grows brighter."""
    head = f"YUV4MPEG2 W{width} H{height} F{rate}:1 Ip A1:1 C420jpeg\n".encode()
    chroma = bytes([128]) * (width * height // 2)
    return head + b"".join(
        b"FRAME\n" + bytes([16 + 200 * index // frames]) * (width * height) + chroma for index in range(frames)
    )


def pdf(pages: list[str], picture: Pixel = (255, 0, 0)) -> bytes:
    """A PDF of 200 by 100 points with a line of text on each page, and one picture of 4 by 4 pixels on the first."""
    bodies = [b"<< /Type /Catalog /Pages 2 0 R >>"]
    kids = " ".join(f"{5 + 2 * index} 0 R" for index in range(len(pages)))
    bodies.append(f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>".encode())
    bodies.append(b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>")
    pixels = bytes(picture) * 16
    bodies.append(
        b"<< /Type /XObject /Subtype /Image /Width 4 /Height 4 /ColorSpace /DeviceRGB /BitsPerComponent 8 "
        b"/Length %d >>\nstream\n%b\nendstream" % (len(pixels), pixels)
    )
    for index, text in enumerate(pages):
        resources = "/Font << /F 3 0 R >>" + (" /XObject << /I 4 0 R >>" if index == 0 else "")
        page = f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 200 100] /Resources << {resources} >> "
        bodies.append(f"{page}/Contents {6 + 2 * index} 0 R >>".encode())
        draw = f"BT /F 12 Tf 20 50 Td ({text}) Tj ET" + (" q 40 0 0 40 150 0 cm /I Do Q" if index == 0 else "")
        bodies.append(f"<< /Length {len(draw)} >>\nstream\n{draw}\nendstream".encode())
    out, places = b"%PDF-1.4\n", []
    for number, body in enumerate(bodies, 1):
        places.append(len(out))
        out += b"%d 0 obj\n%b\nendobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    trailer = b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(bodies) + 1, len(out))
    return out + b"xref\n0 %d\n0000000000 65535 f \n" % (len(bodies) + 1) + table + trailer
