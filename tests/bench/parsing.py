"""What parsing costs and how right it is, on real mail that nobody here wrote.

Each ``bench_...`` takes the data folder and returns rows. Process CPU time is measured, both sides of a comparison in
alternation within one run, so that a busy machine slows them alike.
"""

from __future__ import annotations

import email
import json
import random
import re
import time
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from pipeline.domain import Address
from pipeline.parsing.mail import mail_json, parse_mail
from pipeline.parsing.quotes import own_words
from tests.bench.corpora import ARCHIVES, archive, everything, malformed, tar_files
from tests.bench.rows import BenchRow


def bench_malformed(data: Path) -> list[BenchRow]:
    """How many of the nasty mails read as the authors of another parser expect."""
    strict, lenient, raised = 0, 0, 0
    others: list[str] = []
    paths = malformed(data)
    for path in paths:
        try:
            differences = malformed_differences(path)
        except Exception as error:
            raised += 1
            others.append(f"{path.parent.name}/{path.stem}: raised {error!r}")
            continue
        strict += not differences
        lenient += all(resolved for _, resolved in differences)
        if unresolved := [name for name, resolved in differences if not resolved]:
            name = f"{path.parent.name}/{path.stem}"
            others.append(f"{name}: {', '.join(unresolved)} ({_REASONS.get(name, 'unexplained')})")
    return [
        BenchRow(
            "malformed mails read as expected",
            lenient,
            "mails",
            "all",
            len(paths),
            lenient / len(paths),
            "at least 95 of 107, none raises",
            lenient >= 95 and not raised,
            f"{strict} equal to the letter; in {lenient - strict} the expectation holds U+FFFD where the byte can be read; "
            f"{raised} raised; others: {'; '.join(others)}",
        )
    ]


_UNCLOSED = "a part that is never closed is shown, not called an attachment"
_PREFIX = "a line that only begins with the boundary is no delimiter"
_REASONS = {
    "malformed/001": _PREFIX,
    "malformed/002": "the boundary never comes: the body is shown rather than nothing",
    "malformed/003": _UNCLOSED,
    "malformed/004": _PREFIX,
    "malformed/006": _UNCLOSED,
    "malformed/008": _UNCLOSED,
    "malformed/009": "an outer boundary ends the inner parts, so the texts 22 and 333 are found",
    "malformed/011": "an outer boundary ends the inner parts, so the texts 22 and 333 are found",
    "malformed/016": _PREFIX,
    "malformed/019": "fuzzed headers and delimiters, without one right reading",
    "thirdparty/002": "base64 ends at its padding, and what is not base64 at all stays as it stands",
    "thirdparty/005": "a delimiter in the middle of a line is text",
}


def malformed_differences(path: Path) -> list[tuple[str, bool]]:
    """Which of subject, from, to, cc, date and text differ from what the ``.json`` beside ``path`` expects.

    Whitespace is collapsed. The second value says that the expectation only lacks characters (U+FFFD) that were read.
    """
    expected = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    mail = parse_mail(path.read_bytes())
    root = expected["parts"][0]["headers"]
    pairs = {
        "subject": (mail.subject, _text_field(root, "subject")),
        "from": (_spell((mail.sender,) if mail.sender else ()), _spell(_people(root, "from")[:1])),
        "to": (_spell(mail.to), _spell(_people(root, "to"))),
        "cc": (_spell(mail.cc), _spell(_people(root, "cc"))),
        "date": (str(mail.date), str(_date(root))),
        "text": (mail.text, _body_text(expected)),
    }
    out: list[tuple[str, bool]] = []
    for name, (ours, theirs) in pairs.items():
        ours, theirs = " ".join(ours.split()), " ".join(theirs.split())
        if ours != theirs:
            known = [(a, b) for a, b in zip(ours, theirs, strict=False) if b != "\ufffd"]
            out.append((name, len(ours) == len(theirs) and all(a == b for a, b in known)))
    return out


def bench_mutated(data: Path, count: int = 100_000, seed: int = 1, most: int = 1200) -> list[BenchRow]:
    """Mails of all corpora with bytes flipped, cut, doubled and spliced: does any raise, hang or leak a surrogate?"""
    rng = random.Random(seed)
    pool = everything(data, most)
    raised: Counter[str] = Counter()
    broken = 0
    slowest = 0.0
    for _ in range(count):
        raw = mutate(rng.choice(pool), rng, pool)
        start = time.process_time()
        try:
            mail = parse_mail(raw)
            json.dumps(mail_json(mail), ensure_ascii=False).encode("utf-8")
        except Exception as error:
            raised[repr(error)[:80]] += 1
            continue
        slowest = max(slowest, time.process_time() - start)
        broken += "\0" in mail.text
    note = f"seed {seed}, {len(pool)} mails mutated, slowest {slowest:.2f} s; {broken} with NUL; raised: {dict(raised)}"
    failed = sum(raised.values()) + broken
    met = failed == 0 and slowest <= 1.0
    return [
        BenchRow(
            "mutated mails that raise or keep what no text holds",
            failed,
            "mails",
            "all",
            count,
            failed / count,
            "0",
            not failed,
            note,
        ),
        BenchRow("slowest of the mutated mails", slowest, "s", "", None, None, "at most 1 s", met, note),
    ]


def mutate(raw: bytes, rng: random.Random, pool: Sequence[bytes]) -> bytes:
    """One to eight changes of the kinds that transport, archives and bad programs make."""
    data = bytearray(raw)
    for _ in range(rng.randint(1, 8)):
        at = rng.randrange(len(data) + 1)
        until = min(at + int(rng.expovariate(1 / 40)) + 1, len(data))
        kind = rng.randrange(8)
        if kind == 0:
            data[at:until] = rng.randbytes(until - at)
        elif kind == 1:
            del data[at:until]
        elif kind == 2:
            data[at:at] = data[at:until] * rng.randint(1, 20)
        elif kind == 3:
            data[at:at] = rng.choice(_SPLINTERS)
        elif kind == 4:
            other = rng.choice(pool)
            cut = rng.randrange(len(other) + 1)
            data[at:at] = other[cut : cut + 500]
        elif kind == 5:
            del data[at:]
        elif kind == 6 and until > at:
            data[at] ^= 1 << rng.randrange(8)
        else:
            data[at:until] = data[at:until].swapcase()
    return bytes(data)


_SPLINTERS = (
    b"\n", b"\r", b"\0", b"\n\n", b"\r\n\r\n", b"=?", b"?=", b"=?utf-7?B?", b"=?a?q?=ED=A0=80?=", b"\xed\xa0\x80",
    b"\xff\xfe", b"<", b">", b"\"", b"(", b"\\", b"+2AA-", b"<div>", b"</p>", b"\n> ", b"\n-- \n", b"\n--a--\n",
    b"\nContent-Type: multipart/mixed; boundary=\"a\"\n\n--a\n", b"\nContent-Transfer-Encoding: base64\n",
    b"\nContent-Type: text/html; charset=utf-16\n", b"\nContent-Type: text/plain; charset=utf-7\n",
    b"\nDate: 99 Feb 99999 99:99:99 +9999\n", b"\nReferences: <<<>>><@>\n",
)  # fmt: skip


def bench_own_words(data: Path) -> list[BenchRow]:
    """How well own words are told, against the hand-made annotations of the Apache mails.

    Truth: lines that are not blank nor marked with ``>``, inside a ``Body`` zone and outside ``Body/Signature`` and
    ``Header``. That counts what Outlook leaves of an earlier mail as own; the second row is for replies, where the product
    takes it out, and leaves it out of the truth: own are the lines before the first unmarked Outlook head.
    """
    files = tar_files(data / "quotes-asf-train.tar.gz")
    notes = [json.loads(content) for name, content in sorted(files.items()) if name.endswith(".ann")]
    marked = _f1([(_own_lines(note, False), _lines(own_words(note["text"]))) for note in notes])
    copies = _f1([(_own_lines(note, True), _lines(own_words(note["text"], answers=True))) for note in notes])
    plain = _f1([(_own_lines(note, False), [x for x in _lines(note["text"]) if not x.startswith(">")]) for note in notes])
    name = "own words, F1 over lines"
    return [
        BenchRow(
            name,
            marked,
            "F1",
            "dropping '>' lines",
            plain,
            marked / plain,
            "at least 0.985",
            marked >= 0.985,
            f"{len(notes)} mails",
        ),
        BenchRow(
            f"{name}, unmarked copies in replies not own", copies, "F1", "", None, None, "", None, f"{len(notes)} mails"
        ),
    ]


def _own_lines(note: dict[str, Any], copies_out: bool) -> list[str]:
    text: str = note["text"]
    own = bytearray(len(text) + 1)
    for wanted, value in ((("Body",), 1), (("Body/Signature", "Header"), 0)):
        for zone in note["denotations"]:
            if zone["type"] in wanted:
                own[zone["start"] : zone["end"]] = bytes([value]) * (zone["end"] - zone["start"])
    if copies_out:
        heads = [
            zone["start"]
            for zone in note["denotations"]
            if zone["type"] == "Header" and _OUTLOOK.match(text, zone["start"])
        ]
        own[min(heads, default=len(text)) :] = bytes(len(text) + 1 - min(heads, default=len(text)))
    lines: list[str] = []
    offset = 0
    for line in text.split("\n"):
        stripped = line.strip()
        if stripped and not stripped.startswith(">") and own[offset + len(line) - len(line.lstrip())]:
            lines.append(stripped)
        offset += len(line) + 1
    return lines


_OUTLOOK = re.compile(r"\s*(?:-{3,}\s?Original|_{10,}\s*\n\s*From:|From:|Von:)", re.I)


def _lines(text: str) -> list[str]:
    return [stripped for line in text.split("\n") if (stripped := line.strip())]


def _f1(pairs: Sequence[tuple[list[str], list[str]]]) -> float:
    hit = sum((Counter(truth) & Counter(kept)).total() for truth, kept in pairs)
    return 2 * hit / sum(len(truth) + len(kept) for truth, kept in pairs)


def bench_speed(data: Path, most: int = 4000, batch: int = 100) -> list[BenchRow]:
    """``parse_mail`` against ``email.message_from_bytes``, which only takes a mail apart, on the same mails."""
    return [row for name in ARCHIVES for row in [_speed_row(name, archive(data, name)[:most], batch)]]


def _speed_row(name: str, mails: list[bytes], batch: int) -> BenchRow:
    parse_mail(mails[0])
    ours = theirs = 0.0
    for start in range(0, len(mails), batch):
        some = mails[start : start + batch]
        began = time.process_time()
        for raw in some:
            email.message_from_bytes(raw)
        between = time.process_time()
        for raw in some:
            parse_mail(raw)
        theirs += between - began
        ours += time.process_time() - between
    each = ours / len(mails) * 1e6
    reference = theirs / len(mails) * 1e6
    met = each <= 0.9 * reference if name.startswith("linux-mips") else None
    size = sum(map(len, mails)) // len(mails)
    note = f"{len(mails)} mails of {size} bytes on average; CPU time, in batches of {batch} by turns"
    return BenchRow(
        f"parse {name}",
        each,
        "us per mail",
        "email.message_from_bytes",
        reference,
        each / reference,
        "at most 0.9",
        met,
        note,
    )


def _field(headers: list[dict[str, Any]], name: str) -> Any:
    return next((header["value"] for header in headers if header["name"] == name), None)


def _text_field(headers: list[dict[str, Any]], name: str) -> str:
    value = _field(headers, name)
    return str(value["Text"]) if isinstance(value, dict) and value.get("Text") else ""


def _people(headers: list[dict[str, Any]], name: str) -> tuple[Address, ...]:
    value = _field(headers, name)
    if not isinstance(value, dict):
        return ()
    shape = value["Address"]
    groups = [shape["List"]] if "List" in shape else [group["addresses"] for group in shape["Group"]]
    return tuple(Address(one["name"] or "", (one["address"] or "").lower()) for group in groups for one in group)


def _spell(people: tuple[Address, ...]) -> str:
    return ", ".join(f"{one.name} <{one.address}>" for one in people)


def _date(headers: list[dict[str, Any]]) -> datetime | None:
    value = _field(headers, "date")
    if not isinstance(value, dict):
        return None
    at = value["DateTime"]
    east = timedelta(hours=at["tz_hour"], minutes=at["tz_minute"]) * (-1 if at["tz_before_gmt"] else 1)
    local = datetime(at["year"], at["month"], at["day"], at["hour"], at["minute"], at["second"], tzinfo=timezone(east))
    return (local - east).replace(tzinfo=None)


def _body_text(expected: dict[str, Any]) -> str:
    texts: list[str] = []
    for index in expected["text_body"]:
        body = expected["parts"][index]["body"]
        if "Text" in body:
            texts.append(body["Text"].replace("\0", ""))
        elif "Html" in body:
            texts.append(_Words.of(body["Html"]))
    return "\n".join(texts)


class _Words(HTMLParser):
    """The words of HTML by the standard library's parser, which the product does not use."""

    unseen = ("head", "script", "style", "title")
    breaks = ("br", "p", "div", "h1", "h2", "h3", "li", "td", "tr", "blockquote", "hr", "body", "html", "ul", "ol")

    def __init__(self) -> None:
        super().__init__()
        self.words: list[str] = []
        self.depth = 0

    @classmethod
    def of(cls, html: str) -> str:
        reader = cls()
        reader.feed(html)
        reader.close()
        return "".join(reader.words)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.depth += tag in self.unseen
        if tag in self.breaks:
            self.words.append(" ")

    def handle_endtag(self, tag: str) -> None:
        self.depth -= tag in self.unseen and self.depth > 0
        if tag in self.breaks:
            self.words.append(" ")

    def handle_data(self, data: str) -> None:
        if not self.depth:
            self.words.append(data)
