"""The deck: names that move on, adapters that come and go, and a model that makes way for a run or for another base."""

from __future__ import annotations

import json
import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.home import Home, sha256_folder
from pipeline.runs.requests import AdapterRef, BaseRef
from pipeline.store import Store
from pipeline.times import utc_now
from pipeline.versions import VERSIONS
from registry.byhand import promote
from retrain.serving.asked import Finish, Job, Sampling
from retrain.serving.engine import Engine, Room
from streams.runs.lease import device_for_serving, device_for_training
from streams.server.deck import Deck, Held
from streams.server.errors import ApiError
from streams.server.following import Following
from streams.server.storeroom import Storeroom
from streams.server.turns import Turns
from tests.support.daemons import until
from tests.support.engines import PATIENCE, Answers, model_of
from tests.support.served import MAILBOX, Served, make_served, register

pytestmark = pytest.mark.timeout(900)  # a busy machine takes minutes to import what a model needs


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Served:
    return make_served(tmp_path_factory.mktemp("served") / "home")


class Opened:
    """A deck with a model in memory, and what becomes of its answers."""

    def __init__(self, served: Served, **serve: Any) -> None:
        self.settings = served.settings.model_copy(
            update={"serve": served.settings.serve.model_copy(update={"seconds": 30.0, **serve})}
        )
        self.answers = Answers()
        self.deck = Deck(self.settings.serve, self.answers.take)
        self.made: list[str] = []
        self._served = served
        self.turns = Turns(served.home, self.settings, self.deck, self.make)

    def make(self, base: BaseRef, device: str) -> Engine:
        self.made.append(device)
        return Engine(model_of(self._served, base), Room(8, 65_536, 8))

    def __enter__(self) -> Opened:
        self.turns.open_model(self._served.base)
        return self

    def __exit__(self, *_: object) -> None:
        self.turns.stop()
        self.deck.close("the test is over", wait=0)

    def write(self, name: str, tokens: int) -> tuple[Held, Job]:
        with self.deck.hold(name) as held:
            return held, self.deck.write(held, held.model.encode("x"), Sampling(tokens, temperature=0.0), PATIENCE)


def refused(status: int, code: str) -> Any:
    return pytest.raises(ApiError, check=lambda error: (error.status_code, error.code) == (status, code))


def test_a_name_moves_on_and_an_adapter_leaves_once_nobody_uses_it(served: Served) -> None:
    with Opened(served, adapters=1) as one, ThreadPoolExecutor(1) as pool:
        ahoy, bread = served.adapters["ahoy"], served.adapters["bread"]
        assert one.deck.load(ahoy) > 0 == one.deck.load(ahoy)
        one.deck.point("champion", "aahoy")
        held, job = one.write("champion", 300)
        assert held.name == "aahoy"
        with refused(409, "no_room"):
            one.deck.load(bread, make_room=True)
        with refused(409, "in_use"):
            one.deck.unload("aahoy")
        with refused(409, "not_loaded"):
            one.deck.point("champion", "abread")
        one.deck.point("champion", None)
        leaving = pool.submit(one.deck.unload, "aahoy")
        until(lambda: _refuses(one.deck, "aahoy"))
        with refused(409, "not_loaded"):
            one.deck.point("champion", "aahoy")
        assert one.answers.until(job)[-1].finish is Finish.LENGTH
        assert leaving.result() >= 0
        assert not one.deck.adapters
        one.deck.load(bread, make_room=True)
        assert one.deck.load(ahoy, make_room=True) > 0
        assert list(one.deck.adapters) == ["aahoy"]


@pytest.mark.parametrize("instead", ["refuse", "cpu"])
def test_a_run_has_the_device_for_itself_and_gives_it_back_with_all_that_was_loaded(served: Served, instead: str) -> None:
    with Opened(served, while_training=instead) as one, ThreadPoolExecutor(1) as pool:
        one.turns.start()
        one.deck.load(served.adapters["ahoy"])
        one.deck.point("champion", "aahoy")
        _, job = one.write("champion", 100)
        ended, has_it = threading.Event(), threading.Event()

        def train() -> bool:
            with device_for_training(served.home, threading.Event()):
                has_it.set()
                return ended.wait(PATIENCE)

        trained = pool.submit(train)
        assert has_it.wait(PATIENCE)
        assert one.answers.until(job)[-1].finish is Finish.LENGTH
        if instead == "refuse":
            one.deck.note("")  # as by one who follows the registry and had begun to before
            with pytest.raises(ApiError, match="a run is being trained") as refusal:
                one.write("champion", 4)
            assert (refusal.value.headers or {})["Retry-After"] == "30"
        else:
            until(lambda: one.deck.standing().ready, PATIENCE)
            assert one.write("champion", 4)[0].name == "aahoy"
        ended.set()
        assert trained.result()
        until(lambda: len(one.made) == (2 if instead == "refuse" else 3) and one.deck.standing().ready, PATIENCE)
        assert one.write("champion", 4)[0].name == "aahoy"
        with device_for_serving(served.home) as free:
            assert not free


class Followed(Opened):
    """The same behind the registry of ``served``'s home."""

    def __init__(self, served: Served, **serve: Any) -> None:
        super().__init__(served, **serve)
        storeroom = Storeroom(served.home, self.settings)
        moves = (self.turns.open_model, self.turns.close_model)
        self.following = Following(served.home, self.settings, MAILBOX, storeroom, self.deck, *moves)

    def __enter__(self) -> Followed:
        self.following.look()
        return self


@pytest.mark.parametrize("while_training", ["beside", "refuse"])
def test_a_base_that_was_erased_leaves_and_the_one_made_after_it_is_served(served: Served, while_training: str) -> None:
    folder = served.home.root / served.base.path
    away = folder.with_name("away")
    with Followed(served, while_training=while_training) as one:
        assert one.write("champion", 4)[0].name == served.base.base_id
        folder.rename(away)
        try:
            for _ in range(2):
                one.following.look()
                with pytest.raises(ApiError, match="learned from mail that was erased; the next run makes another") as gone:
                    one.write("champion", 4)
                assert (gone.value.status_code, gone.value.code) == (503, "not_ready")
            assert (one.deck.standing().base, one.deck.adapters, one.deck.standing().device) == (None, (), None)
        finally:
            away.rename(folder)
        os.utime(served.home.store)
        one.following.look()
        assert one.write("champion", 4)[0].name == served.base.base_id
        assert one.write("candidate", 4)[0].name == "abread"
        assert len(one.made) == 2


def test_a_champion_on_another_base_is_followed(served: Served, tmp_path: Path) -> None:
    """With both in the same files, which is all that a server can tell."""
    home = Home(tmp_path / "home")
    shutil.copytree(served.home.root, home.root, ignore=shutil.ignore_patterns("*.sock"))
    other = served.base.model_copy(update={"base_id": "b0ther", "path": f"bases/{MAILBOX}/b0ther"})
    shutil.copytree(home.root / served.base.path, home.root / other.path)
    path = home.adapter("anew")
    shutil.copytree(home.adapter("aahoy"), path)
    config = path / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"base_model_name_or_path": other.base_id}))
    ref = AdapterRef(adapter_id="anew", run_id="run-new", path="adapters/anew", sha256=sha256_folder(path))
    with Followed(replace(served, home=home), candidate=False) as one:
        with Store.open(home, served.settings, VERSIONS) as store:
            register(store, served.settings, other, ref, utc_now())
            promote(store, home, MAILBOX, ref.adapter_id, "better", "test", utc_now())
        one.following.look()
        held, job = one.write("champion", 8)
        assert (held.name, one.deck.standing().base) == ("anew", other.base_id)
        assert one.answers.text(job)


def _refuses(deck: Deck, name: str) -> bool:
    try:
        with deck.hold(name):
            return False
    except ApiError:
        return True
