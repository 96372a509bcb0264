"""What parsing costs and how right it is, on real mail that nobody here wrote.

Each ``bench_...`` takes the data folder and returns rows. Process CPU time is measured, both sides of a comparison in
alternation within one run, so that a busy machine slows them alike.
"""

from __future__ import annotations

import email
import json
import random
import time
from collections import Counter
from datetime import datetime, timedelta, timezone
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from pipeline.domain import Address, ParsedMail
from pipeline.mail import parse_mail
from pipeline.quotes import own_words
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
            others.append(f"{path.parent.name}/{path.stem}: {', '.join(unresolved)}")
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

    @classmethod
    def of(cls, html: str) -> str:
        reader = cls()
        reader.words: list[str] = []
        reader.depth = 0
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
