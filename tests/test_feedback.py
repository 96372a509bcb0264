"""Feedback on answers: on none that was not given, once however often it is sent, kept for good, and counted with care."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.arrival.people import PeopleKey
from pipeline.config.settings import Settings
from pipeline.errors import StoreError
from pipeline.home import Home
from pipeline.store import Store
from pipeline.store.rows import FeedbackRow, TextRow
from pipeline.versions import VERSIONS
from registry.answer_ids import AnswerIds
from registry.feedback import Rating, Said, feedback_figures, note, override_share, overrides, standing
from registry.objections import Says, objections
from streams.homes import make_home
from tests.support.apis import client
from tests.support.finished import Finished
from tests.support.lineage import MAILBOX
from tests.support.program import run

NOW = datetime(2026, 3, 1)
KEY = PeopleKey(b"k" * 32)
SETTINGS = Settings()


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path / "home")
    make_home(made, SETTINGS, KEY)
    return made


@pytest.fixture
def store(home: Home) -> Iterator[Store]:
    with Store.open(home, SETTINGS, VERSIONS) as opened:
        yield opened


def rate(store: Store, adapter: str, ratings: str, users: str = "", start: int = 0) -> None:
    """One answer per letter: ``+`` up, ``-`` down, ``c`` corrected; ``users`` names who speaks, a letter each."""
    words: dict[str, Rating] = {"+": "up", "-": "down", "c": "corrected"}
    for place, letter in enumerate(ratings, start):
        correction = f"better {place}" if letter == "c" else None
        user = users[place - start] if users else None
        said = Said(f"{adapter}-{place}", MAILBOX, adapter, words[letter], correction, user)
        assert note(store, said, NOW + timedelta(minutes=place))


@given(
    st.text(st.characters(codec="ascii", exclude_categories=["Cc"], exclude_characters="-"), min_size=1, max_size=10),
    st.text(st.sampled_from("abc019-."), min_size=1, max_size=30),
    st.text(max_size=60),
)
def test_an_id_tells_who_answered_and_nobody_else_can_make_one(prefix: str, model: str, noise: str) -> None:
    ids = AnswerIds(KEY, "main")
    given_id = ids.issue(prefix, model)
    assert ids.model_of(given_id) == model
    assert AnswerIds(PeopleKey(b"x" * 32), "main").model_of(given_id) is None
    assert AnswerIds(KEY, "other").model_of(given_id) is None
    assert ids.model_of(noise) is None
    told, _, code = given_id.rpartition("-")
    assert ids.model_of(f"{told}x-{code}") is None
    assert ids.issue(prefix, model) != given_id


def test_the_same_again_is_no_second_row_and_a_change_of_mind_is_one(store: Store) -> None:
    def say(rating: Rating, correction: str | None = None, user: str | None = None) -> bool:
        return note(store, Said("x-1", MAILBOX, "a1", rating, correction, user), NOW)

    assert [say("up"), say("up"), say("down"), say("up"), say("up")] == [True, False, True, True, False]
    assert say("up", user="somebody else")
    assert [say("corrected", "Yes."), say("corrected", "Yes."), say("corrected", "No.")] == [True, False, True]
    assert len(store.fetch(FeedbackRow)) == 6
    assert {(row.rating, row.user_key) for row in standing(store)} == {("corrected", None), ("up", "somebody else")}
    assert {row.body for row in store.fetch(TextRow)} == {"Yes.", "No."}
    with pytest.raises(StoreError, match="append-only"):
        store.query("DELETE FROM feedback_rows")


def test_each_adapter_has_its_share_with_bounds(store: Store) -> None:
    rate(store, "a1", "++-c" * 10)
    rate(store, "a2", "++++")
    first, second = overrides(standing(store))
    assert (first.rated, first.up, first.down, first.corrected, first.share) == (40, 20, 10, 10, 0.5)
    # Wilson's bounds of 20 in 40; Student's t with 39 degrees of freedom makes them a little wider than the normal.
    assert first.low == pytest.approx(0.352, abs=0.01)
    assert first.high == pytest.approx(0.648, abs=0.01)
    assert (second.share, second.low) == (0.0, 0.0)
    assert 0.3 < second.high < 1.0


def test_one_who_answers_much_is_one_opinion_unless_nobody_else_speaks(store: Store) -> None:
    rate(store, "a1", "-" * 20 + "+" * 20, users="a" * 20 + "bcdefghijklmnopqrstu")
    rate(store, "a2", "-" * 20 + "+" * 20, users="abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMN")
    rate(store, "a3", "-" * 20 + "+" * 20, users="a" * 40)
    clustered, spread, alone = (override_share(standing(store, adapter_id=name)) for name in ("a1", "a2", "a3"))
    assert clustered is not None and spread is not None and alone is not None
    assert clustered.high - clustered.low > 1.5 * (spread.high - spread.low)
    assert alone.low == pytest.approx(spread.low)
    assert alone.high == pytest.approx(spread.high)
    assert override_share([]) is None


def test_the_gate_hears_of_it_where_there_is_enough(tmp_path: Path) -> None:
    runs = Finished.at(tmp_path / "home", SETTINGS)
    first, _, _ = runs.step()
    runs.close_window()
    asked = runs.request()
    result = runs.finish(asked, new=-0.2)

    def rule(*, least: int = 20) -> tuple[Says, str]:
        policy = SETTINGS.gate.model_copy(update={"least": SETTINGS.gate.least.model_copy(update={"feedback": least})})
        found = objections(feedback_figures(runs.store, asked, result, SETTINGS), policy)
        (told,) = [each for each in found if each.name == "feedback"]
        return told.verdict, told.reason

    assert rule() == (Says.ABSENT, f"feedback: not asked, as nobody rated an answer of {asked.adapter_id}")
    rate(runs.store, asked.adapter_id, "-" * 15)
    assert first.adapter_id in rule()[1]
    rate(runs.store, first.adapter_id, "+" * 60)
    assert rule()[0] is Says.ABSENT, "15 are not enough"
    assert rule(least=15)[0] is Says.OBJECTS
    rate(runs.store, asked.adapter_id, "+" * 100, start=100)
    assert rule()[0] is Says.PASSES, "15 in 115 are not shown to be more than a tenth beyond none"
    (figure,) = feedback_figures(runs.store, asked, result, SETTINGS)
    assert figure.low is not None and figure.high is not None and figure.figure is not None
    assert figure.low < figure.figure < figure.high
    assert math.isclose(figure.figure, 15 / 115)
    runs.store.close()


def test_the_endpoint_takes_it_for_answers_of_this_home_alone(home: Home) -> None:
    ids = AnswerIds(KEY, "main")
    answer = ids.issue("chatcmpl", "a1")
    with client(home, SETTINGS) as api:
        assert (
            api.post("/v1/feedback", json={"id": answer, "rating": "up"}, headers={"Authorization": ""}).status_code == 401
        )
        assert api.post("/v1/feedback", json={"id": answer, "rating": "up"}).json() == {
            "id": answer,
            "model": "a1",
            "rating": "up",
            "noted": True,
        }
        better = {"id": answer, "correction": "The code is 4417.", "user": "ann@home.example"}
        assert [api.post("/v1/feedback", json=better).json()["noted"] for _ in range(2)] == [True, False]
        strange = ids.issue("chatcmpl", "a1").replace("a1", "a2")
        refused = api.post("/v1/feedback", json={"id": strange, "rating": "up"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (404, "answer_not_found")
        for wrong in ({"id": answer}, {"id": answer, "rating": "up", "correction": "x"}, {"id": answer, "rating": "good"}):
            assert api.post("/v1/feedback", json=wrong).status_code in (400, 422)
    with Store.open(home, SETTINGS, VERSIONS) as store:
        rows = store.fetch(FeedbackRow)
        assert [(row.rating, row.adapter_id, row.mailbox) for row in rows] == [
            ("up", "a1", "main"),
            ("corrected", "a1", "main"),
        ]
        assert rows[1].user_key is not None and "ann" not in rows[1].user_key
        assert [row.body for row in store.fetch(TextRow)] == ["The code is 4417."]
    assert b"4417" not in home.store.read_bytes(), "what people write lies with the mail's texts"
    assert home.bodies.stat().st_mode & 0o777 == 0o600
    shown = run(home.root, "feedback", "--json")
    assert [(row["adapter_id"], row["rated"], row["corrected"]) for row in json.loads(shown.stdout)] == [("a1", 2, 1)]
