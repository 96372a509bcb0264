"""What goes wrong in an otherwise orderly mailbox, and to which mails."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta

from streams.demo.damage import BREAKAGES
from streams.demo.dice import Dice
from streams.demo.letters import Letter

BRIDGES = 8
DUPLICATES = 6
BRIDGE_DAYS = 25
BOTH = "I answer both of your mails at once."


@dataclass(frozen=True, slots=True)
class Mishaps:
    """``letters`` with the bridges in place; ``broken`` maps the ids of mails to what breaks them; ``copied`` are ids of
    mails that come a second time; ``bridges`` those that answer two threads."""

    letters: tuple[Letter, ...]
    broken: dict[str, Callable[[Letter], bytes]]
    copied: frozenset[str]
    bridges: frozenset[str]


def befall(letters: tuple[Letter, ...], dice: Dice) -> Mishaps:
    """Chooses among mails that stand alone, so that no answer refers to a broken one and no fact is lost."""
    sizes = Counter(letter.thread for letter in letters)
    alone = [
        position
        for position, letter in enumerate(letters)
        if sizes[letter.thread] == 1 and letter.fact is None and letter.list_address is None and not letter.headers
    ]
    chosen = dice.some(alone, len(BREAKAGES) + DUPLICATES + BRIDGES)
    broken = {letters[position].message_id: breaks for position, breaks in zip(chosen, BREAKAGES, strict=False)}
    copied = frozenset(letters[position].message_id for position in chosen[len(BREAKAGES) : len(BREAKAGES) + DUPLICATES])
    changed = list(letters)
    bridges: set[str] = set()
    for position in chosen[len(BREAKAGES) + DUPLICATES :]:
        bridge = _bridge(letters, position, {*broken, *copied}, dice)
        if bridge is not None:
            changed[position] = bridge
            bridges.add(bridge.message_id)
    return Mishaps(tuple(changed), broken, copied, frozenset(bridges))


def _bridge(letters: tuple[Letter, ...], position: int, spared: set[str], dice: Dice) -> Letter | None:
    """The letter as an answer to two recent threads, or None where there are none."""
    letter = letters[position]
    since = letter.arrived - timedelta(days=BRIDGE_DAYS)
    recent = [
        other
        for other in letters[:position]
        if other.arrived >= since and not other.references and not other.headers and other.message_id not in spared
    ]
    parents = dice.some(recent, 2)
    if len(parents) < 2:
        return None
    first, second = (parent.message_id for parent in parents)
    return replace(letter, references=(first, second), in_reply_to=f"<{second}>", paragraphs=(BOTH, *letter.paragraphs))
