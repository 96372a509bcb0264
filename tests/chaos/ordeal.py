"""Mail comes, parts are killed and started again, and each must get back to work; then everything is left to finish."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from threading import Event

from tests.chaos.parts import Part, Role
from tests.chaos.plan import Blow, Deck, blows
from tests.chaos.post import Mail, Source
from tests.chaos.systems import TRAINS, System
from tests.chaos.watching import Watch

LOOK_SECONDS = 0.05
UNSEEN = frozenset({"deployer"})
"""Parts of which nothing is seen until there is something for them to do."""
PATIENCE_SECONDS = 300.0
"""How long a part may take to get back to work, and mail to be taken, before that counts as never."""
SETTLE_SECONDS = 900.0
MOST_DEATHS = 2
"""A run whose training process vanishes more often than this is given up by design."""

Say = Callable[[str], None]


class Stuck(Exception):
    """Something did not happen, however long it was waited for."""


@dataclass(frozen=True, slots=True)
class Kill:
    """One kill. ``seconds`` from the start after it until the part's work went on; None when that cannot be said: two were
    killed at once, or it had nothing to do."""

    part: str
    seconds: float | None


@dataclass(frozen=True, slots=True)
class Mails:
    """What is delivered to one source."""

    source: Source
    mails: Sequence[Mail]

    def share(self, number: int, of: int) -> Sequence[Mail]:
        """The part of the mails that comes as number ``number`` of ``of``."""
        return self.mails[len(self.mails) * number // of : len(self.mails) * (number + 1) // of]


class Ordeal:
    """One run. Everything random is drawn from ``rng``; what happens meanwhile takes the time that it takes.

    ``patient`` waits after each kill that hit training until training goes on too. Starting it costs ten seconds or more,
    so without it a short run is mostly over before anything is trained, and all training comes in the end.
    """

    def __init__(self, system: System, post: Sequence[Mails], rng: Random, say: Say, *, patient: bool) -> None:
        self.kills: list[Kill] = []
        self._system = system
        self._post = post
        self._rng = rng
        self._say = say
        self._patient = patient
        self._parts = {part.name: part for part in system.parts}
        self._deck = Deck(rng, list(self._parts))
        self._watch = Watch(system.home)
        self._pause = Event()
        self._deaths: Counter[str] = Counter()

    def suffer(self, kills: int) -> None:
        """All kills, while the mail comes; half of a share before each, the other half when the part is back.

        Raises ``Stuck`` when a part does not get back to work."""
        plan = blows(self._rng, kills)
        shares = 2 * len(plan) + 1
        # Something must be there before anything can be interrupted.
        self._until_taken(self._deliver(0, shares), "the first mail is taken")
        for number, blow in enumerate(plan):
            self._deliver(2 * number + 1, shares)
            self._pause.wait(blow.wait)
            self._strike(blow, 2 * number + 2, shares)
            if number % 10 == 9:
                self._say(f"{len(self.kills)} kills, {self._watch.messages()} messages")

    def finish(self) -> None:
        """Returns when all mail is taken and every closing has its run and every run its verdict; raises ``Stuck``."""
        last = {mails.source.mailbox: [mail.key for mail in mails.mails if mail.key][-1] for mails in self._post}
        self._until_taken(last, "all mail is taken")
        self._until(self._watch.settled, "every closing has its run and every run its verdict", SETTLE_SECONDS)

    def _strike(self, blow: Blow, number: int, shares: int) -> None:
        struck: list[Part] = []
        training = self._watch.run_under_way()
        for _ in range(blow.parts):
            name = self._deck.deal(lambda one: self._can_die(one, training, struck))
            if name is None:
                break
            struck.append(self._parts[name])
            if name == "trainer":
                self._deaths[training or ""] += 1
            self._parts[name].kill()
            if blow.absence:
                self._pause.wait(blow.absence)
        began, began_ns = time.monotonic(), time.time_ns()
        for part in struck:
            part.start()
        probes = self._deliver(number, shares)
        self._until_taken(probes, f"mail is taken after {_named(struck)} died")
        seconds: float | None = time.monotonic() - began
        if training and self._patient and any(part.name in (*TRAINS, "daemon") for part in struck):
            self._until(
                lambda: self._watch.trained_since(began_ns) or self._watch.trained(training),
                f"training goes on after {_named(struck)} died",
            )
        if struck[0].name in TRAINS:
            seconds = time.monotonic() - began if training and self._patient else None
        told = seconds if len(struck) == 1 and struck[0].name not in UNSEEN else None
        self.kills += [Kill(part.name, told) for part in struck]

    def _can_die(self, name: str, training: str | None, struck: Sequence[Part]) -> bool:
        part = self._parts[name]
        if part in struck or not part.runs():
            return False
        return name != "trainer" or self._deaths[training or ""] < MOST_DEATHS

    def _deliver(self, number: int, of: int) -> dict[str, str]:
        """A share of the mail; by mailbox the key of a mail by which it is known to be taken."""
        probes: dict[str, str] = {}
        for mails in self._post:
            share = mails.share(number, of)
            mails.source.deliver(share)
            # The last mail of a file is only known to be whole when the file has been quiet for a while.
            known = [mail.key for mail in share[:-1] if mail.key]
            if known:
                probes[mails.source.mailbox] = known[-1]
        return probes

    def _until_taken(self, probes: dict[str, str], what: str) -> None:
        for mailbox, key in probes.items():
            self._until(lambda mailbox=mailbox, key=key: self._watch.stored(mailbox, key), what)  # type: ignore[misc]

    def _until(self, so: Callable[[], bool], what: str, patience: float = PATIENCE_SECONDS) -> None:
        end = time.monotonic() + patience
        while not so():
            self._system.tend()
            if time.monotonic() > end:
                raise Stuck(f"it never came to this: {what}")
            self._pause.wait(LOOK_SECONDS)


def ended_unasked(roles: Sequence[Role]) -> dict[str, int]:
    """How often each role ended by itself and was started again, where it did."""
    return {role.name: role.ended for role in roles if role.ended}


def _named(parts: Sequence[Part]) -> str:
    return " and ".join(part.name for part in parts)
