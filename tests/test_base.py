"""The built-in base: made once from window 0's train split, the same bytes each time, and it has learned something."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.config.settings import ModelSettings
from pipeline.domain import Split
from pipeline.errors import RunError
from pipeline.home import sha256_folder
from pipeline.runs.runfiles import Exclusions
from retrain.evaluation.losses import nats_of
from retrain.models.base import build, find_base, learn_tokenizer, locate, packed, verify
from retrain.models.loaded import Loaded
from retrain.models.model import choose_compute, load_base, load_tokenizer
from retrain.training.batches import AS_WRITTEN, Source, encode
from retrain.training.metrics import StepRecord
from tests.support.mailroom import TINY, Mailroom, letters

COMPUTE = choose_compute(ModelSettings(), 1)


def quiet(record: StepRecord) -> None:
    """Hears nothing."""


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mailroom]:
    room = Mailroom(tmp_path_factory.mktemp("home"))
    room.close()
    yield room


@pytest.fixture(scope="module")
def base(room: Mailroom) -> Path:
    return find_base(room.home, room.ask(), Exclusions(), COMPUTE, quiet)


def test_the_same_shard_gives_the_same_bytes_in_another_home(base: Path, tmp_path: Path) -> None:
    other = Mailroom(tmp_path / "elsewhere")
    other.close()
    assert sha256_folder(find_base(other.home, other.ask(), Exclusions(), COMPUTE, quiet)) == sha256_folder(base)


def test_a_base_that_is_there_is_verified_and_taken_as_it_is(room: Mailroom, base: Path) -> None:
    def unexpected(record: StepRecord) -> None:
        raise AssertionError("trained again")

    assert find_base(room.home, room.ask(), Exclusions(), COMPUTE, unexpected) == base


def test_a_changed_base_is_refused(tmp_path: Path) -> None:
    room = Mailroom(tmp_path)
    room.close(4)
    folder = find_base(room.home, room.ask(), Exclusions(), COMPUTE, quiet)
    (folder / "config.json").write_text("{}")
    with pytest.raises(RunError, match=r"config\.json of the base .* changed"):
        verify(folder)


def test_it_predicts_unseen_letters_better_than_word_counts(tmp_path: Path) -> None:
    chunks = letters(0)
    longer = TINY.model_copy(update={"base_tokens": 60_000})
    build([chunk.text for chunk in chunks if chunk.split is Split.TRAIN], longer, 0, COMPUTE, tmp_path, quiet)
    tokenizer = load_tokenizer(tmp_path)
    unseen = [chunk for chunk in chunks if chunk.split is not Split.TRAIN]
    examples = encode(tokenizer, [Source(chunk.chunk_id, chunk.text, chunk.new_from) for chunk in unseen], TINY.context)
    seen = Counter[int]()
    for ids in tokenizer([chunk.text for chunk in chunks if chunk.split is Split.TRAIN], **AS_WRITTEN)["input_ids"]:
        seen.update(ids)
    total = sum(seen.values()) + TINY.vocabulary
    labels = [token for example in examples for token in example.ids[example.label_from :]]
    unigram = -sum(math.log((seen[token] + 1) / total) for token in labels) / len(labels)
    model = load_base(tmp_path, COMPUTE, quantize=False)
    nats = nats_of(Loaded(model, COMPUTE, tokenizer.pad_token_id), examples, 1024)
    learned = sum(nats.values()) / len(labels)
    assert learned < unigram - 0.3


def test_excluded_threads_and_other_splits_leave_no_trace(room: Mailroom, base: Path, tmp_path: Path) -> None:
    chunks = letters(0)
    train = {chunk.thread_id for chunk in chunks if chunk.split is Split.TRAIN}
    gone = min(train)
    other = Mailroom(tmp_path)
    other.lineage.close([chunk for chunk in chunks if chunk.thread_id in train - {gone}])
    alone = find_base(other.home, other.ask(), Exclusions(), COMPUTE, quiet)
    whole = Mailroom(tmp_path / "whole")
    whole.close()
    excluding = find_base(whole.home, whole.ask(), Exclusions(threads=frozenset({gone})), COMPUTE, quiet)
    assert sha256_folder(alone) == sha256_folder(excluding) != sha256_folder(base)


def test_every_text_is_spelled_and_spelled_back(base: Path) -> None:
    tokenizer = load_tokenizer(base)
    for text in ("Grüße, 日本語 🎉\x00\x7f", "  two  spaces\n\n\ttab", "<s> don 't ."):
        assert tokenizer.decode(tokenizer([text], **AS_WRITTEN)["input_ids"][0]) == text


def test_the_token_budget_is_kept_in_whole_steps_over_all_rows() -> None:
    tokenizer = learn_tokenizer([chunk.text for chunk in letters(0)], TINY)
    texts = tokenizer([chunk.text for chunk in letters(0)], **AS_WRITTEN)["input_ids"]
    batches = packed(texts, tokenizer.bos_token_id, TINY, seed=1)
    tokens = sum(len(example.ids) for batch in batches for example in batch.examples)
    assert TINY.base_tokens - 512 < tokens <= TINY.base_tokens
    rows = {example.chunk_id for batch in batches for example in batch.examples}
    assert len(rows) == sum(1 + len(text) for text in texts) // TINY.context


def test_a_missing_external_base_says_what_to_do(room: Mailroom) -> None:
    request = room.ask()
    named = request.base.model_copy(update={"kind": "external", "path": "nobody/no-such-model"})
    with pytest.raises(RunError, match="allow_download"):
        locate(room.home, named, ModelSettings(base="nobody/no-such-model"))
