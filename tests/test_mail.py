"""What mails become: goldens of our own, real nasty ones, mutated ones, and the promises made for any bytes."""

from __future__ import annotations

import base64
import json
import time
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain import Address
from pipeline.parsing.charsets import decode
from pipeline.parsing.dates import parse_date
from pipeline.parsing.headers import in_reply_to, message_id, newest_received, references
from pipeline.parsing.html_text import html_to_text
from pipeline.parsing.mail import MAX_TEXT, mail_json, parse_mail
from pipeline.parsing.mime import MAX_DEPTH, MAX_PARTS
from pipeline.parsing.subjects import normalise_subject
from tests.bench.parsing import bench_malformed, bench_mutated

MAILS = Path(__file__).parent / "mails"


def test_each_mail_of_our_own_becomes_what_its_json_says() -> None:
    paths = sorted(MAILS.glob("*.eml"))
    for path in paths:
        found = mail_json(parse_mail(path.read_bytes()))
        assert found == json.loads(path.with_suffix(".json").read_text(encoding="utf-8")), path.stem
    assert len(paths) >= 18


def test_line_ends_and_a_separator_line_change_nothing() -> None:
    for path in sorted(MAILS.glob("*.eml")):
        raw = path.read_bytes()
        if path.stem == "no-header":
            continue
        expected = parse_mail(raw)
        dos = parse_mail(raw.replace(b"\n", b"\r\n"))
        assert (dos.text, dos.own_text, dos.subject, dos.to) == (
            expected.text,
            expected.own_text,
            expected.subject,
            expected.to,
        ), path.stem
        assert parse_mail(b"From someone@example Mon Jan  1 00:00:00 2001\n" + raw) == expected


@pytest.mark.data
def test_nasty_mails_read_as_another_parser_expects(real_mail: Path) -> None:
    (row,) = bench_malformed(real_mail)
    assert row.reference_value == 107
    assert row.met, row.note


@pytest.mark.data
def test_two_thousand_mutated_mails_raise_nothing(real_mail: Path) -> None:
    for row in bench_mutated(real_mail, count=2000, seed=7, most=150):
        assert row.met, row.note


def _is_clean(value: object) -> bool:
    text = json.dumps(value, ensure_ascii=False)
    text.encode("utf-8")  # raises on a surrogate
    return "\\u0000" not in text


@given(st.binary(max_size=400))
def test_any_bytes_become_clean_text(raw: bytes) -> None:
    assert _is_clean(mail_json(parse_mail(raw)))


_LABELS = st.sampled_from(
    [
        "",
        "utf-8",
        "utf-7",
        "utf-16",
        "iso-2022-jp",
        "iso-2022-kr",
        "hz",
        "big5",
        "gb2312",
        "euc-kr",
        "x-sjis",
        "koi8-r",
        "a",
        "rot13",
    ]
)


@given(st.binary(max_size=200), _LABELS, st.sampled_from(["", "base64", "quoted-printable", "x-uuencode", "nonsense"]))
def test_any_body_in_any_charset_and_encoding_is_clean_text(body: bytes, label: str, encoding: str) -> None:
    head = f"Content-Type: text/plain; charset={label}\nContent-Transfer-Encoding: {encoding}\n\n".encode()
    assert _is_clean(mail_json(parse_mail(head + body)))


@given(st.text(alphabet=st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp", "Zs"]), min_size=1, max_size=60))
def test_an_encoded_subject_comes_back(subject: str) -> None:
    word = base64.b64encode(subject.encode()).decode()
    assert parse_mail(f"Subject: =?utf-8?B?{word}?=\n\n".encode()).subject == subject


@pytest.mark.parametrize(
    ("value", "moment"),
    [
        ("Tue, 1 Jul 2003 10:52:37 +0200", datetime(2003, 7, 1, 8, 52, 37)),
        ("1 Jul 03 10:52 EDT", datetime(2003, 7, 1, 14, 52)),
        ("Tue Jul  1 10:52:37 2003", datetime(2003, 7, 1, 10, 52, 37)),
        ("Tue Jul  1 10:52:37 PDT 2003", datetime(2003, 7, 1, 17, 52, 37)),
        ("Tuesday, 01-Jul-103 10:52:37 GMT", datetime(2003, 7, 1, 10, 52, 37)),
        ("2003-07-01T10:52:37.123+02:00", datetime(2003, 7, 1, 8, 52, 37)),
        ("Tue, 1 Jul 2003 10:52:60 (GMT)", datetime(2003, 7, 1, 10, 52, 59)),
        ("Tue, 1 Jul 2003 10:52:37 PM -0000", datetime(2003, 7, 1, 22, 52, 37)),
        ("Tue, 1 Jul 2003 10:52:37 +9900", datetime(2003, 7, 1, 10, 52, 37)),
        ("Tue, 31 Feb 2003 10:52:37", None),
        ("Thu, 1 Jan 1909 00:00:00 +0000", None),
        ("yesterday", None),
        ("", None),
    ],
)
def test_dates_as_programs_write_them(value: str, moment: datetime | None) -> None:
    assert parse_date(value) == moment


@pytest.mark.parametrize(
    ("value", "people"),
    [
        ("Ann Lee <Ann@B.org>", [("Ann Lee", "ann@b.org")]),
        (
            '"Lee, Ann" <ann@b.org>, bob@c.org (Bob (the) Builder)',
            [("Lee, Ann", "ann@b.org"), ("Bob (the) Builder", "bob@c.org")],
        ),
        ("Crew: ann@b.org, <bob@c.org>; , dan@d.org", [("", "ann@b.org"), ("", "bob@c.org"), ("", "dan@d.org")]),
        ("undisclosed-recipients:;", []),
        ("ann at b.org (Ann Lee)", [("Ann Lee", "ann@b.org")]),
        ("@nn @end|ng |rom b@org (Ann Lee)", [("Ann Lee", ".nn@b.org")]),
        ("<@relay.org,@two.org:ann@b.org>", [("", "ann@b.org")]),
        ("Ann Lee", [("Ann Lee", "")]),
        ('"Ann \\"A\\" Lee" <ann@b.org', [('Ann "A" Lee', "ann@b.org")]),
        ('"=?utf-8?q?Lee=2C_Ann?=" <ann@b.org>', [("Lee, Ann", "ann@b.org")]),
        ('"Ann" <ann@b.org>, Bob C <bob@c.org>', [("Ann", "ann@b.org"), ("Bob C", "bob@c.org")]),
        ("=?utf-8?q?Lee=2C_Ann?= <ann@b.org>, bob@c.org", [("Lee, Ann", "ann@b.org"), ("", "bob@c.org")]),
    ],
)
def test_addresses_as_programs_write_them(value: str, people: list[tuple[str, str]]) -> None:
    assert parse_mail(f"To: {value}\n\n".encode()).to == tuple(Address(*one) for one in people)


def test_ids_lose_brackets_and_folding_but_not_their_case() -> None:
    assert message_id("<Ab.C@d.org> (added by relay)") == "Ab.C@d.org"
    assert message_id("<very.long. part@d.org>") == "very.long.part@d.org"
    assert message_id("") is None
    assert references("<a@b> <c@d> <a@b>") == (("a@b", "c@d"), False)
    ids, shortened = references(" ".join(f"<{number}@x>" for number in range(500)))
    assert shortened
    assert (len(ids), ids[0], ids[1], ids[-1]) == (200, "0@x", "301@x", "499@x")


def test_in_reply_to_gives_tokens_not_prose() -> None:
    assert in_reply_to("<a@b>") == ("a@b",)
    assert in_reply_to('Your message of "Mon, 1 Jan 2001 09:00:00 GMT." <a@b>') == ("a@b",)
    assert in_reply_to("Message from Ann <ann@b.org> of <your last words>, <200101.AA1@c.org>") == (
        "ann@b.org",
        "200101.AA1@c.org",
    )
    assert in_reply_to("a@b") == ("a@b",)
    assert in_reply_to("the mail of ann@b.org") == ()


@pytest.mark.parametrize(
    ("subject", "normalised", "reply"),
    [
        ("Re: Fwd: AW: [list] Re[2]: The  Boat", "the boat", True),
        ("Fwd: The boat (fwd)", "the boat", False),
        ("[Fwd: Re: The boat]", "the boat", True),
        ("SV: VS: Antw: RE : the boat", "the boat", True),
        ("回复：船", "船", True),
        ("Regarding: the boat", "regarding: the boat", False),
        ("[list] The boat", "the boat", False),
        ("[list]", "[list]", False),
        ("Re:", "", True),
    ],
)
def test_subjects_are_made_comparable(subject: str, normalised: str, reply: bool) -> None:
    assert normalise_subject(subject) == (normalised, reply)


@given(st.text(max_size=80))
def test_normalising_a_subject_twice_is_once(subject: str) -> None:
    once = normalise_subject(subject)[0]
    assert normalise_subject(f"Re: {subject}")[0] == once


@pytest.mark.parametrize(
    ("data", "label", "text"),
    [
        ("höher".encode(), "", "höher"),
        ("höher".encode("latin-1"), "utf-8", "höher"),
        ("höher".encode("latin-1"), "unknown-8bit", "höher"),
        ("漢字".encode("big5"), "CHINESEBIG5", "漢字"),
        ("€".encode("cp1252"), "iso-8859-1", "€"),
        ("привет".encode("koi8-r"), '"KOI8-R"', "привет"),
        ("雪".encode("iso2022_jp"), "", "雪"),
        (b"a+2AA-b", "utf-7", "a\ufffdb"),
    ],
)
def test_charsets_as_mail_labels_them(data: bytes, label: str, text: str) -> None:
    assert decode(data, label)[0] == text


def test_bulk_and_auto_are_told_from_discussion() -> None:
    discussion = parse_mail(
        b"Precedence: bulk\nList-Id: <l.x.org>\nList-Post: <mailto:l@x.org>\nList-Unsubscribe: <u>\n\nhi"
    )
    assert not discussion.bulk
    assert discussion.list_id == "l.x.org"
    assert not parse_mail(b"Precedence: bulk\nSender: owner-linux@x.org\n\nhi").bulk
    assert parse_mail(b"Precedence: junk\n\nhi").bulk
    assert parse_mail(b"List-Unsubscribe: <u>\n\nhi").bulk
    assert parse_mail(b"Auto-Submitted: auto-generated\n\nhi").auto
    assert parse_mail(b"Return-Path: <>\n\nhi").auto
    assert not parse_mail(b"Auto-Submitted: no\nReturn-Path: <a@b>\n\nhi").auto


def test_newest_received_is_the_topmost_with_a_date() -> None:
    raw = (
        b"Received: by a (no date)\nReceived: from b by a\n\twith SMTP; Tue, 1 Jul 2003 10:52:37 +0200\n"
        b"Received: from c by b; Mon, 30 Jun 2003 10:00:00 +0000\n\nReceived: by x; Fri, 4 Jul 2003 00:00:00 +0000\n"
    )
    assert newest_received(raw) == datetime(2003, 7, 1, 8, 52, 37)
    assert newest_received(b"Subject: none\n\n") is None


def _bounded(raw: bytes) -> tuple[str, ...]:
    start = time.process_time()
    mail = parse_mail(raw)
    assert time.process_time() - start < 2.0
    return mail.defects


def test_each_limit_is_a_defect_and_none_costs_much_time() -> None:
    nested = b"".join(b'Content-Type: multipart/mixed; boundary="b%d"\n\n--b%d\n' % (n, n) for n in range(3 * MAX_DEPTH))
    assert "depth-limit" in _bounded(nested + b"\ntext\n")
    many = b"Content-Type: multipart/mixed; boundary=b\n\n" + b"--b\n\nx\n" * (2 * MAX_PARTS)
    assert "part-limit" in _bounded(many)
    unclosed = b"Content-Type: multipart/mixed; boundary=b\n\n"
    unclosed += (
        b"".join(b"--b\nContent-Type: multipart/mixed; boundary=c%d\n\n" % n for n in range(900)) + b"y\n" * 2_000_000
    )
    assert "boundary" in _bounded(unclosed)
    assert "part-limit" in _bounded(b"Content-Type: multipart/mixed; boundary=b\n\n--b\n\n" + b"--bb\n" * 200_000)
    assert "header-limit" in _bounded(b"Subject: x\n" + b"X-A: b\n" * 100_000 + b"\ntext")
    assert "header-limit" in _bounded(b"To: " + b"a@b.org, " * 20_000 + b"\n\ntext")
    assert "references-limit" in _bounded(b"References: " + b"".join(b"<%d@x>\n " % n for n in range(1000)) + b"\n\ntext")


def test_hostile_patterns_cost_little() -> None:
    hostile = [
        b"Subject: " + b"=?utf-8?q?" * 20_000,
        b"Subject: " + b"[a" * 50_000,
        b"Subject: " + b" " * 100_000 + b"x",
        b"From: " + b"(" * 100_000,
        b"From: " + b'"\\' * 100_000,
        b"From: " + b"a at " * 40_000,
        b"From: " + b"a@ " * 60_000,
        b"From: " + b"@ending from " * 20_000,
        b"To: " + b"<" * 100_000,
        b"To: " + b"a:" * 100_000,
        b"References: " + b"<" * 100_000,
        b"References: " + b"<a" * 100_000,
        b"Content-Type: text/plain; " + b"a=b;" * 50_000,
        b"Content-Type: text/plain; " + b"a*1=b;" * 40_000,
        b"Content-Type: text/plain; " + b" " * 200_000,
        b"Date: " + b"1 " * 100_000,
        b"Date: " + b" " * 100_000,
        b"List-Post: " + b"mailto:" * 30_000,
        b"Precedence: bulk\nSender: " + b"owner-a" * 30_000,
        b"Precedence: bulk\nSender: " + b"-owner+a" * 30_000,
        b"Content-Type: text/html\n\n" + b"<div>" * 400_000,
        b"Content-Type: text/html\n\n" + b"<a " + b"x" * 8 + b" b=c" * 200_000 + b">",
        b"Content-Type: text/html\n\n" + b"<table><tr><td>" * 100_000,
        b"Content-Type: text/html\n\n" + b"<b><p>" * 100_000,
        b"Content-Type: text/html\n\n" + b"<p><b>" * 100_000,
        b"Content-Type: text/html\n\n" + b"<a<a" * 100_000,
        b"Content-Type: text/html\n\n" + b"x<br>" * 300_000,
        b"Content-Type: text/html\n\n" + b"<li><b>" * 100_000,
        b"Content-Type: text/html\n\n" + b"<td><font>" * 100_000,
        b"Content-Type: text/html\n\n" + b"<font>" * 900 + b"<p>x" * 100_000,
        b"Content-Type: text/html\n\n" + b"<p>" + b"<a>" * 900 + b"</p>" * 100_000,
        b"Content-Type: text/html\n\n" + b"<blockquote>" * 900 + b"x<br>" * 100_000,
        b"Subject: x\n\n" + b"-- \n" * 200_000,
        b"Subject: x\n\na\n" + b"-- \n" * 200_000,
        b"Subject: x\n\na\n" + b"-- \nb\nc d e f\n" * 100_000,
        b"Subject: x\n\n" + b"On 1 May 2001 a@b.org:\n" * 50_000,
        b"Subject: x\n\n" + b"From: a\nTo: b\nDate: c\nSubject: d\n\n" * 20_000,
        b"Subject: x\n\n" + b"From: a\n" * 200_000,
        b"Subject: Re: x\n\n" + b"a\n____________\nunsubscribe\n> q\n" * 20_000,
        b"Subject: Re: x\n\na\n" + b"____________\n\nb\n" * 100_000,
        b"Subject: Re: x\n\na\n" + b"____________\n\n\n\n\n" * 100_000,
        b"Subject: Re: x\n\n" + b"-----Original Message-----\n" * 100_000,
        b"Subject: Re: x\n\na\n" + b"-----Original Message-----\n>\nb\n" * 100_000,
        b"Subject: x\n\n" + b" \n" * 400_000 + b"> q",
        b"Subject: x\n\n" + b" \n" * 1000 + b"> q\n\n" * 200000,
        b"Subject: x\n\n" + b"-----BEGIN PGP SIGNATURE-----\n" * 20_000,
        b"Subject: x\n\n" + b"-----BEGIN PGP SIGNED MESSAGE-----\n" * 20_000,
        b"Subject: x\n\n" + b"----------\n" * 50_000,
        b"Subject: x\n\n" + b"a:\n" * 400_000,
        b"Subject: x\n\n" + b"Mon:\n" * 300_000,
        b"Subject: x\n\n" + b"Sent from my iPhone\n> q\n" * 100_000,
        b"Subject: x\n\n" + b"Von meinem " * 100_000,
        b"Content-Type: text/plain; format=flowed\n\n" + b"> a \n" * 300_000,
        b"Content-Type: text/plain; charset=hz\n\n" + b"~{" * 1_000_000,
        b"Content-Type: text/plain; charset=utf-7\n\n" + b"+" * 2_000_000,
        b"Content-Type: text/plain; charset=iso-2022-kr\n\n" + b"\x1b$)C\x0e" * 500_000,
        b"Content-Transfer-Encoding: quoted-printable\n\n" + b"= " * 1_500_000,
        b"Content-Transfer-Encoding: quoted-printable\n\n" + b"=" + b" " * 1_500_000 + b"x",
        b"Content-Transfer-Encoding: x-uuencode\n\n" + b"begin 644 x\n" + b"M\n" * 1_000_000,
        b"Content-Type: multipart/mixed; boundary=b\n\n--b" + b" " * 1_500_000 + b"x",
        b"\n\n" * 1000000,
        b"a:b\n" * 1000000,
        b"From " * 100000,
    ]
    for raw in hostile:
        _bounded(raw)


def test_a_mail_of_forty_megabytes_is_no_special_case() -> None:
    line = base64.b64encode(bytes(range(57))) + b"\n"
    count = 40_000_000 // len(line)
    raw = b"".join(
        [
            b"Subject: big\nContent-Type: multipart/mixed; boundary=b\n\n--b\n\nsee the film\n--b\n",
            b"Content-Type: video/mp4; name=film.mp4\nContent-Transfer-Encoding: base64\n\n",
            line * count,
            b"--b--\n",
        ]
    )
    start = time.process_time()
    mail = parse_mail(raw)
    assert time.process_time() - start < 1.0
    assert mail.text == "see the film"
    assert mail.attachments[0].size == 57 * count
    assert mail.defects == ("date", "no-message-id")


def test_text_is_kept_up_to_its_limit() -> None:
    mail = parse_mail(b"Subject: long\n\n" + b"a line of text\n" * 400_000)
    assert len(mail.text) == MAX_TEXT
    assert "text-truncated" in mail.defects


def test_html_keeps_paragraphs_and_marks_quotes() -> None:
    html = "<p>One<br>two</p><blockquote>three<blockquote>four</blockquote></blockquote>"
    html += "<pre>a\n  b</pre><script>no</script>&copy;"
    assert html_to_text(html) == "One\ntwo\n\n> three\n>\n>> four\n\na\n  b\n\n©"
