"""Draws the Mandelbrot set into a PNG file, with nothing but the standard library."""

import struct
import zlib
from collections.abc import Callable
from pathlib import Path


def render(file: Path, width: int, height: int, on_row: Callable[[int], None]) -> None:
    """Draw the picture, and report each row before it is drawn."""
    rows = []
    for y in range(height):
        on_row(y)
        rows.append(b"\0" + bytes(shade(x / width, y / height) for x in range(width)))
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    image = zlib.compress(b"".join(rows))
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", image) + chunk(b"IEND", b"")
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + parts)


def shade(x: float, y: float) -> int:
    """Return how bright a point is, from 0 to 255."""
    c, z = complex(3 * x - 2.2, 2.4 * y - 1.2), 0j
    for step in range(64):
        z = z * z + c
        if abs(z) > 2:  # noqa: PLR2004
            return 255 - 4 * step
    return 0


def chunk(kind: bytes, data: bytes) -> bytes:
    """Return one chunk of a PNG file."""
    checksum = struct.pack(">I", zlib.crc32(kind + data))
    return struct.pack(">I", len(data)) + kind + data + checksum
