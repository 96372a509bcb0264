"""Mail comes, parts are killed and started again, and each must get back to work; then everything is left to finish."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from random import Random
from threading import Event

from tests.chaos.parts import Part, Role
from tests.chaos.plan import Blow, Deck, blows
from tests.chaos.post import Mail, Source
from tests.chaos.systems import System
from tests.chaos.watching import Watch

LOOK_SECONDS = 0.05
TRAINERS = frozenset({"GPU consumer", "trainer"})
"""Parts without which only training stops; what they do is seen in the run that is under way."""
TRAINING = TRAINERS | {"daemon"}
UNSEEN = TRAINERS | {"deployer"}
"""Parts of which the way of the mail shows nothing."""
PATIENCE_SECONDS = 300.0
"""How long a part may take to get back to work, and mail to be taken, before that counts as never."""
SETTLE_SECONDS = 900.0

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


@dataclass(frozen=True, slots=True)
class Interrupted:
    """A run whose training was hit: when, by two clocks, and the place of the kill whose time it settles, if any."""

    run_id: str
    began: float
    began_ns: int
    kill: int | None


class Ordeal:
    """One run. Everything random is drawn from ``rng``; what happens meanwhile takes the time that it takes.

    A run whose training was hit is left to finish: it takes longer to start than anything else, so it would never get
    anywhere. The other parts are struck meanwhile.
    """

    def __init__(self, system: System, post: Sequence[Mails], rng: Random, say: Say) -> None:
        self.kills: list[Kill] = []
        self._system = system
        self._post = post
        self._rng = rng
        self._say = say
        self._interrupted: Interrupted | None = None
        self._spared: str | None = None
        self._parts = {part.name: part for part in system.parts}
        self._deck = Deck(rng, list(self._parts))
        self._watch = Watch(system.home)
        self._pause = Event()

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
            self._look_after()
            self._strike(blow, 2 * number + 2, shares)
            if number % 10 == 9:
                self._say(f"{len(self.kills)} kills, {self._watch.messages()} messages")

    def finish(self) -> None:
        """Returns when all mail is taken, every closing has its run, every run its verdict, and the champions are deployed;
        raises ``Stuck``."""
        last = {mails.source.mailbox: [mail.key for mail in mails.mails if mail.key][-1] for mails in self._post}
        self._until_taken(last, "all mail is taken")
        self._until(self._watch.settled, "every closing has its run and every run its verdict", SETTLE_SECONDS)
        self._until(self._watch.deployed, "the champion of each mailbox is deployed")

    def _strike(self, blow: Blow, number: int, shares: int) -> None:
        struck: list[Part] = []
        training = self._watch.run_under_way()
        for _ in range(blow.parts):
            name = self._deck.deal(lambda one: self._can_die(one, struck))
            if name is None:
                break
            struck.append(self._parts[name])
            self._parts[name].kill()
            if blow.absence:
                self._pause.wait(blow.absence)
        began, began_ns = time.monotonic(), time.time_ns()
        for part in struck:
            part.start()
        place, alone = len(self.kills), len(struck) == 1
        self.kills += [Kill(part.name, None) for part in struck]
        names = {part.name for part in struck}
        if training is not None and names & TRAINING and not self._watch.trained(training):
            self._interrupted = Interrupted(training, began, began_ns, place if alone and names & TRAINERS else None)
            self._spared = training
        probes = self._deliver(number, shares)
        self._until_taken(probes, f"mail is taken after {_named(struck)} died")
        if alone and not names & UNSEEN:
            self._back(place, began)

    def _back(self, place: int, began: float) -> None:
        """A part that was killed is back to work."""
        self.kills[place] = replace(self.kills[place], seconds=time.monotonic() - began)

    def _can_die(self, name: str, struck: Sequence[Part]) -> bool:
        part = self._parts[name]
        if part in struck or not part.runs():
            return False
        return name not in TRAINING or self._spared is None

    def _look_after(self) -> None:
        """Starts again what ended by itself, and notes when a run that was hit goes on, and when it is done."""
        self._system.tend()
        if self._spared is not None and self._watch.trained(self._spared):
            self._spared = None
        hit = self._interrupted
        if hit is None or not self._watch.trained_since(hit.run_id, hit.began_ns):
            return
        if hit.kill is not None:
            self._back(hit.kill, hit.began)
        self._interrupted = None

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
            self._look_after()
            if time.monotonic() > end:
                raise Stuck(f"it never came to this: {what}")
            self._pause.wait(LOOK_SECONDS)


def ended_unasked(roles: Sequence[Role]) -> dict[str, int]:
    """How often each role ended by itself and was started again, where it did."""
    return {role.name: role.ended for role in roles if role.ended}


def _named(parts: Sequence[Part]) -> str:
    return " and ".join(part.name for part in parts)
