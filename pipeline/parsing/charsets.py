"""Bytes to text, with the charset labels that mail really carries: wrong, old, misspelt or missing.

A label names what a program meant, not always what it wrote. So a label is honoured while the bytes agree with it; else
UTF-8 is tried, which random bytes hardly ever satisfy, and then windows-1252, which takes anything.
"""

from __future__ import annotations

import codecs
import re
from functools import lru_cache

_SUPERSETS = {
    "ascii": "",  # what is ASCII needs no codec, what is not was mislabelled
    "iso8859-1": "cp1252",  # the web's reading: C1 controls are never meant
    "iso8859-9": "cp1254",
    "iso8859-11": "cp874",
    "tis-620": "cp874",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "big5": "cp950",
    "euc_kr": "cp949",
    "shift_jis": "cp932",
    "iso2022_jp": "iso2022_jp_ext",
}
"""Codecs replaced by one that reads all they read, and what is written in their name besides."""

_ALIASES = {
    "a": "",
    "default": "",
    "default_charset": "",
    "unknown": "",
    "unknown-8bit": "",
    "x-unknown": "",
    "unknown-charset": "",
    "8bit": "",
    "7bit": "",
    "binary": "",
    "none": "",
    "x-user-defined": "",
    "iso-8859-8-i": "iso-8859-8",
    "iso-8859-8-e": "iso-8859-8",
    "iso-8859-6-i": "iso-8859-6",
    "chinesebig5": "cp950",
    "big5-eten": "cp950",
    "x-big5": "cp950",
    "cn-big5": "cp950",
    "cn-gb": "gb18030",
    "gb_2312-80": "gb18030",
    "gb2312_charset": "gb18030",
    "x-gbk": "gb18030",
    "ks_c_5601-1987": "cp949",
    "ks_c_5601-1989": "cp949",
    "ksc5601": "cp949",
    "windows-949": "cp949",
    "windows-874": "cp874",
    "dos-874": "cp874",
    "x-sjis": "cp932",
    "windows-31j": "cp932",
    "x-euc-jp": "euc_jp",
    "eucjp": "euc_jp",
    "cp50220": "iso2022_jp_ext",
    "iso-2022-jp-ms": "iso2022_jp_ext",
    "macintosh": "mac_roman",
    "x-mac-roman": "mac_roman",
    "x-mac-ce": "mac_latin2",
    "x-mac-cyrillic": "mac_cyrillic",
    "x-mac-greek": "mac_greek",
    "x-mac-turkish": "mac_turkish",
    "unicode-1-1-utf-7": "utf-7",
    "x-unicode-2-0-utf-7": "utf-7",
    "unicode-1-1-utf-8": "utf-8",
    "x-unicode-2-0-utf-8": "utf-8",
    "utf8mb4": "utf-8",
    "unicode": "utf-16",
    "x-cp1250": "cp1250",
    "x-cp1251": "cp1251",
    "win-1251": "cp1251",
    "koi8": "koi8_r",
    "koi": "koi8_r",
    "ansi": "cp1252",
    "ansi_x3.110-1983": "cp1252",
    "iso-8859": "cp1252",
    "iso-8859-1-windows-3.1-latin-1": "cp1252",
    "latin": "cp1252",
}
"""Labels that Python does not know, or reads otherwise than mail means them; empty: nothing is known."""

_NOT_CHARSETS = frozenset({"idna", "punycode", "unicode_escape", "raw_unicode_escape", "undefined", "mbcs", "oem"})
_SURROGATE = re.compile("[\ud800-\udfff]")
_C1_AS_WINDOWS = {code: bytes([code]).decode("cp1252", "ignore") or chr(code) for code in range(0x80, 0xA0)}


@lru_cache(maxsize=512)
def codec_name(label: str) -> str:
    """The Python codec for a charset label, ``""`` when the label says nothing usable."""
    name = label.strip(" \t\r\n\"'<>=;,.").lower()
    for prefix in ("charset=", "cs"):
        bare = name.removeprefix(prefix)
        if bare != name and _lookup(bare):
            name = bare
    return _lookup(name)


def _lookup(name: str) -> str:
    if not name or len(name) > 60 or not name.isascii() or "\0" in name:
        return ""
    if name in _ALIASES:
        return _ALIASES[name]
    for attempt in (name, name.removeprefix("x-"), name.replace("windows", "cp").replace("-", ""), name.replace("_", "-")):
        try:
            info = codecs.lookup(attempt)
        except (LookupError, ValueError):
            continue
        if info.name in _NOT_CHARSETS or not getattr(info, "_is_text_encoding", True):
            return ""
        return _SUPERSETS.get(info.name, info.name)
    return ""


@lru_cache(maxsize=512)
def _codec(label: str) -> tuple[str, bool]:
    """The codec for a label, and whether ASCII bytes mean ASCII in it (not so in UTF-7, HZ, ISO-2022, UTF-16, EBCDIC)."""
    name = codec_name(label)
    if not name:
        return "", True
    probe = bytes(range(0x20, 0x7F))
    plain = not name.startswith(("utf-7", "hz", "iso2022")) and _strict(probe, name) == probe.decode("ascii")
    return name, plain


def decode(data: bytes, label: str = "") -> tuple[str, bool]:
    """The text of ``data``, without surrogates, and whether the bytes agreed with the label. Never raises."""
    name, plain = _codec(label)
    if plain and data.isascii():
        if name or b"\x1b$" not in data:
            return data.decode("ascii"), True
        text = _strict(data, "iso2022_kr" if b"\x1b$)C" in data else "iso2022_jp_ext")
        return (data.decode("ascii"), True) if text is None else (text, False)
    if name and name != "cp1252":
        text = _strict(data, name)
        if text is not None:
            return text, True
        if name != "utf-8" or _mostly_utf8(data):
            return _SURROGATE.sub("\ufffd", data.decode(name, "replace")), False
        return _western(data), False
    text = _strict(data, "utf-8") if not name else None
    if text is not None:
        return text, not label
    return _western(data), bool(name)


def _strict(data: bytes, name: str) -> str | None:
    try:
        text = data.decode(name)
    except (UnicodeError, ValueError, LookupError, OverflowError):
        return None
    if name == "utf-7" and _SURROGATE.search(text):
        return None
    return text


def _mostly_utf8(data: bytes) -> bool:
    """Whether damaged bytes were meant as UTF-8: more well-formed sequences beyond ASCII than broken ones."""
    text = data.decode("utf-8", "replace")
    broken = text.count("\ufffd")
    return sum(map("\x7f".__lt__, text)) >= 2 * broken + 1


def _western(data: bytes) -> str:
    """windows-1252, its five holes as the C1 controls of ISO 8859-1, so that every byte has a reading."""
    try:
        return data.decode("cp1252")
    except UnicodeDecodeError:
        return data.decode("latin-1").translate(_C1_AS_WINDOWS)
