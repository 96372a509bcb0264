"""The generated mailbox: the same everywhere, readable by anyone, drifting, and with answers to be found."""

from __future__ import annotations

import hashlib
import mailbox
import os
import re
import subprocess
import sys
from collections import Counter
from datetime import datetime
from email.message import Message
from email.utils import mktime_tz, parsedate_tz
from itertools import pairwise
from pathlib import Path

import pytest

from pipeline.parsing.mail import parse_mail
from streams.demo.facts import FACTS
from streams.demo.mailbox import DemoMailbox, write_mailbox
from streams.demo.plot import tell

SEED = 7
ADDRESS = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> DemoMailbox:
    return write_mailbox(tmp_path_factory.mktemp("demo") / "demo.mbox", seed=SEED)


@pytest.fixture(scope="module")
def mails(demo: DemoMailbox) -> list[mailbox.mboxMessage]:
    return list(mailbox.mbox(demo.path))


def text_of(mail: Message) -> str:
    """All text of a mail as the standard library decodes it, unknown charsets as Latin-1."""
    pieces: list[str] = []
    for part in mail.walk():
        if part.get_content_maintype() != "text":
            continue
        data = part.get_payload(decode=True)
        assert isinstance(data, bytes)
        try:
            pieces.append(data.decode(part.get_content_charset("latin-1"), "replace"))
        except LookupError:
            pieces.append(data.decode("latin-1"))
    return "\n".join(pieces)


def message_id(mail: Message) -> str:
    return str(mail.get("Message-ID", "")).strip("<> ")


def arrival(mail: mailbox.mboxMessage) -> datetime:
    return datetime.strptime(mail.get_from().split(" ", 1)[1], "%a %b %d %H:%M:%S %Y")


def test_same_seed_gives_the_same_bytes_in_another_process(demo: DemoMailbox, tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from streams.demo.mailbox import write_mailbox; "
        f"write_mailbox(Path(sys.argv[1]), seed={SEED})"
    )
    other = tmp_path / "other.mbox"
    environment = os.environ | {"PYTHONHASHSEED": "4711", "TZ": "Asia/Kolkata", "LC_ALL": "C"}
    subprocess.run([sys.executable, "-c", script, str(other)], check=True, env=environment, timeout=60)
    assert hashlib.sha256(other.read_bytes()).digest() == hashlib.sha256(demo.path.read_bytes()).digest()


def test_another_seed_tells_another_story(demo: DemoMailbox, tmp_path: Path) -> None:
    other = write_mailbox(tmp_path / "other.mbox", seed=SEED + 1)
    assert other.path.read_bytes() != demo.path.read_bytes()
    assert {fact.message_id for fact in other.facts}.isdisjoint(fact.message_id for fact in demo.facts)


def test_counts_are_those_of_the_file(demo: DemoMailbox, mails: list[mailbox.mboxMessage]) -> None:
    assert len(mails) == demo.mails == demo.messages + demo.duplicates
    assert demo.messages == sum(phase.messages for phase in demo.phases) == 1400
    ids = Counter(message_id(mail) for mail in mails if message_id(mail))
    assert len(ids) == demo.messages - 1, "one broken mail has no Message-ID"
    assert sum(count == 2 for count in ids.values()) == demo.duplicates > 0
    assert sum(mail["Precedence"] == "bulk" and "List-Unsubscribe" in mail for mail in mails) == demo.bulk > 20
    assert sum("Auto-Submitted" in mail for mail in mails) == demo.automatic > 20


def test_arrivals_are_in_order_and_date_headers_nearly_so(demo: DemoMailbox, mails: list[mailbox.mboxMessage]) -> None:
    arrivals = [arrival(mail) for mail in mails]
    assert arrivals == sorted(arrivals)
    assert (arrivals[-1] - arrivals[0]).days > 17 * 30
    assert all(before.ends == after.starts for before, after in pairwise(demo.phases))
    sent = [parsed for mail in mails if (parsed := _date(mail)) is not None]
    behind = sum(after < before for before, after in pairwise(sent))
    assert 3 < behind < len(sent) * 0.05


def _date(mail: Message) -> float | None:
    parsed = parsedate_tz(mail["Date"])
    return None if parsed is None else float(mktime_tz(parsed))


def test_everybody_is_fictional(demo: DemoMailbox) -> None:
    addresses = set(ADDRESS.findall(demo.path.read_text("utf-8", errors="replace").replace("=\n", "")))
    assert len(addresses) > 1000
    assert not {address for address in addresses if not address.endswith(".example")}


def test_mails_are_packed_in_many_ways(mails: list[mailbox.mboxMessage]) -> None:
    types = Counter(mail.get_content_type() for mail in mails)
    assert min(types[kind] for kind in ("text/plain", "text/html", "multipart/alternative", "multipart/mixed")) > 20
    parts = [part for mail in mails for part in mail.walk() if not part.is_multipart()]
    encodings = Counter(str(part.get("Content-Transfer-Encoding")) for part in parts)
    assert min(encodings[kind] for kind in ("8bit", "quoted-printable", "base64")) > 20
    charsets = Counter(str(part.get_content_charset()) for part in parts)
    assert min(charsets[kind] for kind in ("utf-8", "iso-8859-1", "windows-1252")) > 20
    assert charsets["x-tidewater-special"] == 1
    files = [part for part in parts if part.get_content_disposition() == "attachment"]
    assert {part.get_content_type() for part in files} == {"text/csv", "image/png"}
    pictures = [part.get_payload(decode=True) for part in files if part.get_content_type() == "image/png"]
    assert all(isinstance(picture, bytes) and picture.startswith(b"\x89PNG") for picture in pictures)


def test_answers_refer_to_mail_that_came_before(demo: DemoMailbox, mails: list[mailbox.mboxMessage]) -> None:
    seen: set[str] = set()
    answers = without_references = 0
    for mail in mails:
        named = re.findall(r"<([^<>\s]+\.\d{10}@[^<>\s]+)>", f"{mail.get('References', '')} {mail.get('In-Reply-To', '')}")
        assert seen.issuperset(named)
        answers += bool(named)
        without_references += bool(named) and "References" not in mail
        seen.add(message_id(mail))
    assert answers > demo.messages * 0.4
    assert without_references > 20
    assert any("<" in str(mail["In-Reply-To"]) and "(a message from" in str(mail["In-Reply-To"]) for mail in mails)
    assert sum(str(mail["Subject"]).startswith(("Re:", "RE:", "AW:")) and "In-Reply-To" not in mail for mail in mails) > 5


def test_lines_that_look_like_separators_are_escaped(demo: DemoMailbox, mails: list[mailbox.mboxMessage]) -> None:
    raw = demo.path.read_bytes()
    assert len(re.findall(rb"^>From ", raw, re.MULTILINE)) > 0
    assert len(re.findall(rb"^From \S+@\S+ \w{3} \w{3} [ \d]\d \d\d:\d\d:\d\d 20\d\d$", raw, re.MULTILINE)) == len(mails)
    assert len(re.findall(rb"^From ", raw, re.MULTILINE)) == len(mails)


def test_each_later_phase_brings_words_that_nobody_has_used(demo: DemoMailbox, mails: list[mailbox.mboxMessage]) -> None:
    known: set[str] = set()
    fresh: list[float] = []
    for phase in demo.phases:
        words = [
            word
            for mail in mails
            if phase.starts <= arrival(mail) < phase.ends and mail.get_content_type() == "text/plain"
            for word in re.findall(r"[a-zé]{4,}", text_of(mail).lower())
        ]
        fresh.append(sum(word not in known for word in words) / len(words))
        known.update(words)
    assert all(share > 0.1 for share in fresh[1:]), fresh


def test_phases_have_enough_threads_for_evidence(demo: DemoMailbox) -> None:
    assert demo.phases[0].messages == 500
    assert [phase.messages for phase in demo.phases[1:]] == [150] * 6
    assert min(phase.threads for phase in demo.phases) >= 60
    assert 1.8 < demo.messages / demo.threads < 2.4


@pytest.mark.parametrize("seed", [SEED, 0])
def test_every_fact_stands_once_and_its_question_finds_it(seed: int, tmp_path: Path) -> None:
    import bm25s

    demo = write_mailbox(tmp_path / "demo.mbox", seed=seed)
    mails = list(mailbox.mbox(demo.path))
    texts = [" ".join(f"{mail['Subject']}\n{text_of(mail)}".split()) for mail in mails]
    index = bm25s.BM25()
    index.index(bm25s.tokenize(texts, stopwords="en", show_progress=False), show_progress=False)
    assert {fact.question for fact in demo.facts} == {fact.question for fact in FACTS}
    for fact in demo.facts:
        assert [message_id(mail) for mail, text in zip(mails, texts, strict=True) if fact.answer in text] == [
            fact.message_id
        ]
        question = bm25s.tokenize([fact.question], stopwords="en", show_progress=False)
        found, _ = index.retrieve(question, k=1, show_progress=False)
        assert message_id(mails[int(found[0, 0])]) == fact.message_id, fact.question


def test_own_words_are_what_their_writers_wrote(mails: list[mailbox.mboxMessage]) -> None:
    letters = {letter.message_id: letter for letter in tell(SEED, 18, 1400).letters}
    same = compared = 0
    for mail in mails:
        parsed = parse_mail(re.sub(rb"^>(>*From )", rb"\1", mail.as_bytes(), flags=re.MULTILINE))
        letter = letters.get(parsed.message_id or "")
        if letter is None or letter.headers:
            continue
        compared += 1
        same += parsed.own_text.split() == " ".join(letter.paragraphs).split()
    assert compared > 1200
    assert same / compared > 0.93


def test_a_small_mailbox_is_possible(tmp_path: Path) -> None:
    demo = write_mailbox(tmp_path / "small.mbox", seed=1, months=2, messages=60)
    assert demo.messages == 60
    assert len(list(mailbox.mbox(demo.path))) == demo.mails
    assert (demo.phases[-1].ends - demo.phases[0].starts).days in (60, 61)
    assert demo.facts
