"""Small files that come with a mail."""

from __future__ import annotations

import struct
import zlib

from streams.demo.dice import Dice
from streams.demo.letters import File

PIXELS = 12


def some_file(topic: str, dice: Dice) -> File:
    """A table of readings or a tiny picture, named after the topic."""
    number = dice.between(1, 60)
    if dice.chance(0.6):
        rows = [f"{row},{dice.between(10, 400)},{dice.unit():.3f}" for row in range(1, dice.between(5, 16))]
        table = "\r\n".join(["row,value,share", *rows, ""])
        return File(f"{topic}-{number}.csv", "text/csv", table.encode())
    colour = bytes(dice.between(0, 255) for _ in range(3))
    return File(
        f"{topic} Skizze für {number}.png" if dice.chance(0.2) else f"{topic}-{number}.png", "image/png", png(colour)
    )


def png(colour: bytes) -> bytes:
    """A square of one RGB colour (PNG specification, third edition: IHDR, IDAT, IEND; colour type 2)."""
    rows = b"".join(b"\0" + colour * PIXELS for _ in range(PIXELS))
    # Stored, not deflated: compressors differ between builds of zlib, and the mailbox must not.
    body = (
        b"\x78\x01\x01" + struct.pack("<HH", len(rows), len(rows) ^ 0xFFFF) + rows + struct.pack(">I", zlib.adler32(rows))
    )
    chunks = ((b"IHDR", struct.pack(">IIBBBBB", PIXELS, PIXELS, 8, 2, 0, 0, 0)), (b"IDAT", body), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
