"""Mail that no person wrote to Ada: newsletters, and programs that answer or report by themselves."""

from __future__ import annotations

from datetime import datetime, timedelta

from streams.demo.dice import Dice
from streams.demo.grammar import Words, expand
from streams.demo.letters import Letter
from streams.demo.people import OWNER, PEOPLE
from streams.demo.person import Attribution, Form, Person, Posting
from streams.demo.phases import Phase
from streams.demo.prose import COMMON


def _machine(name: str, address: str, *forms: Form) -> Person:
    return Person(
        name,
        address,
        ("",),
        ("",),
        ("",),
        f"You receive this because you are on a list of {name}.",
        forms,
        Attribution.WROTE,
        Posting.ABOVE,
        0,
        76,
        "Postroom 8.8",
    )


NEWSLETTERS = (
    _machine("The Tidewater Gazette", "news@gazette.example", Form.HTML, Form.ALTERNATIVE),
    _machine("Chandlery & More", "offers@chandlery.example", Form.ALTERNATIVE),
    _machine("Bureau of Pretend Culture", "agenda@culture.example", Form.PLAIN_QP),
)
REPORTERS = (
    _machine("Tidewater Library", "reminders@library.example", Form.PLAIN_8BIT),
    _machine("Backup of millhouse", "root@millhouse.tidewater.example", Form.PLAIN_8BIT),
)

MACHINE_WORDS: dict[str, tuple[str, ...]] = {
    **COMMON,
    "ware": ("rope", "oilskins", "lanterns", "seed packets", "sketchbooks", "teapots", "rubber boots", "brass screws"),
    "event": (
        "the mud race",
        "the kite market",
        "the chamber concert",
        "the lantern walk",
        "the cheese fair",
        "the boat jumble",
    ),
    "venue": ("the town hall", "the quay", "the assembly rooms", "the old customs house", "the bandstand"),
    "book": ("The Leaky Almanac", "Knots for Beginners", "A Short History of Fog", "The Gull's Opinion", "Bread and Tides"),
    "disk": ("/home", "/srv/photos", "/var/mail", "/srv/scores"),
}
NEWSLETTER_SENTENCES = (
    "[Save|Get] {n:10-60} percent on {ware} [until|before] {day}, and {n:5-20} percent on {ware}.",
    "{event} returns to {venue} on {day} at {time}, tickets from {price}.",
    "Our readers voted {book} the best book of the season.",
    "Council: the vote on {venue} has been postponed to {day}.",
    "New in our shop: {ware} made of recycled {ware}.",
    "More than {n:200-3900} visitors came to {event}.",
    "Win {n:2-9} tickets for {event} by writing to the editors.",
    "Roadworks near {venue} will last {n:2-9} weeks.",
)
REPORT_SENTENCES = (
    "Your loan of {book} is due on {day}.",
    "{book} is waiting for you at the desk until {day}.",
    "Backup of {disk} finished: {n:100-3900} files, {n:1-90} seconds, {n:0-3} warnings.",
    "{disk} is {n:40-97} percent full.",
)
SOME_NEWS = (4, 7)
SOME_REPORTS = (2, 4)


def newsletter(phase: Phase, thread: int, arrived: datetime, dice: Dice) -> Letter:
    """Bulk mail, with the marks by which it can be told."""
    sender = dice.pick(NEWSLETTERS)
    host = sender.address.partition("@")[2]
    headers = (
        ("List-Id", f"{sender.name} <news.{host}>"),
        ("List-Unsubscribe", f"<https://{host}/leave/{dice.hexadecimal(8)}>, <mailto:leave@{host}>"),
        ("Precedence", "bulk"),
    )
    subject = dice.pick(("{event} and more", "{n:10-60} percent on {ware}", "This week: {event}", "{book}, and other news"))
    return _mass_mail(phase, thread, sender, subject, NEWSLETTER_SENTENCES, SOME_NEWS, arrived, headers, dice)


def report(phase: Phase, thread: int, arrived: datetime, dice: Dice) -> Letter:
    """Mail that a program sent on its own account."""
    sender = dice.pick(REPORTERS)
    subject = dice.pick(("Report of {day}, {n:1-60}", "Reminder: {book}", "Status of {disk}"))
    headers = (("Auto-Submitted", "auto-generated"),)
    return _mass_mail(phase, thread, sender, subject, REPORT_SENTENCES, SOME_REPORTS, arrived, headers, dice)


def away(phase: Phase, thread: int, arrived: datetime, dice: Dice) -> Letter:
    """A person's mail program answers that the person is away."""
    sender = dice.pick(tuple(PEOPLE.values()))
    words = Words.focused(MACHINE_WORDS, dice)
    text = "I am away from {day} and will read your mail after {n:2-14} days. In urgent cases please wait."
    return Letter(
        message_id=_id(sender, arrived, dice),
        phase=phase.index,
        thread=thread,
        topic="machines",
        sender=sender,
        to=(OWNER,),
        cc=(),
        subject=f"Out of office: {sender.name}",
        sent=arrived,
        arrived=arrived,
        form=Form.PLAIN_QP,
        paragraphs=(expand(text, words, dice),),
        headers=(("Auto-Submitted", "auto-replied"), ("X-Auto-Response-Suppress", "All")),
    )


def _mass_mail(
    phase: Phase,
    thread: int,
    sender: Person,
    subject: str,
    sentences: tuple[str, ...],
    some: tuple[int, int],
    arrived: datetime,
    headers: tuple[tuple[str, str], ...],
    dice: Dice,
) -> Letter:
    words = Words.focused(MACHINE_WORDS, dice)
    return Letter(
        message_id=_id(sender, arrived, dice),
        phase=phase.index,
        thread=thread,
        topic="machines",
        sender=sender,
        to=(OWNER,),
        cc=(),
        subject=expand(subject, words, dice),
        sent=arrived - timedelta(seconds=dice.between(1, 40)),
        arrived=arrived,
        form=dice.pick(sender.forms),
        paragraphs=tuple(expand(template, words, dice) for template in dice.some(sentences, dice.between(*some))),
        headers=headers,
    )


def _id(sender: Person, arrived: datetime, dice: Dice) -> str:
    return f"{dice.hexadecimal(16)}.{arrived:%Y%m%d}@{sender.address.partition('@')[2]}"
