"""The base of a run: found, fetched, or, for the built-in model, made from the mailbox's own first window.

The built-in model needs no download: a byte-level BPE and a small Llama, trained from scratch on the train split of
window 0 within a fixed number of tokens, then frozen. The same shard and settings give the same bytes on the same
hardware, software and number of threads.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from pipeline.capacity.bases import require_usable
from pipeline.capacity.content import by_name, require_content
from pipeline.chunking.shards import read_meta, read_texts
from pipeline.config.settings import BuiltinModel, ModelSettings
from pipeline.domain import Split
from pipeline.errors import RunError
from pipeline.home import Home, fsync_dir, private_dir, sha256_file
from pipeline.runs.requests import BaseRef, RunRequest, ShardRef
from pipeline.runs.runfiles import Exclusions
from retrain.models.fetching import here_or_fetched
from retrain.models.loaded import Loaded
from retrain.models.model import Compute
from retrain.training.batches import AS_WRITTEN, Batch, Example
from retrain.training.checkpoints import seal
from retrain.training.metrics import StepRecord
from retrain.training.recipe import Recipe
from retrain.training.trainer import Training, fit

START, PAD = "<s>", "<pad>"

DIGESTS = "base.json"

ROW_TOKENS = 512
"""Length of a training row; shorter where the context is."""
STEP_TOKENS = 512
"""Tokens per optimizer step. Of a small fixed budget, many small steps make more than few large ones: 400,000 tokens of
list mail end at 5.95 nats with 2,048 per step, 5.31 with 1,024 and 5.17 with 512, in the same time."""


def find_base(
    home: Home, request: RunRequest, exclusions: Exclusions, compute: Compute, on_step: Callable[[StepRecord], None]
) -> Path:
    """The folder of the request's base, complete: built or fetched first where it is not there.

    A built-in base that exists is verified against the digests recorded when it was made. Raises ``RunError``.
    """
    folder = home.root / request.base.path
    if request.base.kind == "external" or folder.is_dir():
        return locate(home, request.base, request.settings.model)
    texts = _train_texts(home, request.shards[0], exclusions)
    if not texts:
        raise RunError(
            f"window {request.shards[0].window_idx} of {request.mailbox} holds no train chunk to make the built-in base of",
            hint="import more mail before the first retrain, or set model.base",
        )
    written = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(written, ignore_errors=True)
    build(texts, request.settings.model.builtin, request.settings.seed, compute, private_dir(written), on_step)
    digests = {path.name: sha256_file(path) for path in sorted(written.iterdir())}
    (written / DIGESTS).write_text(json.dumps({"files": digests}, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    seal(written)
    written.replace(folder)
    fsync_dir(folder.parent)
    return folder


def locate(home: Home, base: BaseRef, model: ModelSettings) -> Path:
    """The folder of a base that is there: a built-in one verified, an external one fetched first where that is allowed, and
    held against its content where the request could tell that."""
    if base.kind == "external":
        folder = here_or_fetched(base.path, model)
        require_usable(folder, model.objective)
        if base.base_id != by_name(base.path, model.revision):
            require_content(home, folder, base.base_id)
        return folder
    folder = home.root / base.path
    if not folder.is_dir():
        raise RunError(f"the built-in base {base.base_id} is not made yet", hint="run `mailtide retrain --confirm` first")
    verify(folder)
    return folder


def verify(folder: Path) -> None:
    """Raises ``RunError`` unless every file is the one recorded when the base was made."""
    try:
        recorded: dict[str, str] = json.loads((folder / DIGESTS).read_text(encoding="utf-8"))["files"]
        wrong = [name for name, digest in recorded.items() if sha256_file(folder / name) != digest]
    except (OSError, ValueError, KeyError) as error:
        raise RunError(f"the base in {folder} cannot be verified ({error})", hint=_AGAIN) from error
    if wrong:
        raise RunError(f"{', '.join(wrong)} of the base in {folder} changed since it was made", hint=_AGAIN)


_AGAIN = "remove that folder and run again: it is made anew, with the same bytes on the same hardware and software"


def build(
    texts: Sequence[str],
    model: BuiltinModel,
    seed: int,
    compute: Compute,
    folder: Path,
    on_step: Callable[[StepRecord], None],
) -> None:
    """Trains tokenizer and model from scratch and writes both to ``folder``."""
    tokenizer = learn_tokenizer(texts, model)
    tokenizer.save_pretrained(str(folder))
    torch.manual_seed(seed)
    network = new_network(model, tokenizer).to(compute.device)
    batches = packed(tokenizer(list(texts), **AS_WRITTEN)["input_ids"], tokenizer.bos_token_id, model, seed)
    recipe = Recipe(
        lr=model.base_lr,
        warmup=0.1,
        weight_decay=0.1,
        clip=1.0,
        accumulation=1,
        optimizer="adamw_torch_fused",
        beta2=0.95,
        seed=seed % 2**32,
    )
    fit(Training(Loaded(network, compute, tokenizer.pad_token_id), batches, recipe, folder, on_step))
    network.to("cpu").save_pretrained(str(folder))


def learn_tokenizer(texts: Sequence[str], model: BuiltinModel) -> Any:
    """A byte-level BPE: every text can be spelled, whatever its language, and spelled back."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=model.vocabulary,
        special_tokens=[START, PAD],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token=START,
        pad_token=PAD,
        model_max_length=model.context,
        clean_up_tokenization_spaces=False,
    )


def new_network(model: BuiltinModel, tokenizer: Any) -> Any:
    """A Llama with random weights (from torch's seed): 2.6 M parameters by default, input and output embeddings tied."""
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=model.vocabulary,
            hidden_size=model.width,
            intermediate_size=model.width * 8 // 3,
            num_hidden_layers=model.layers,
            num_attention_heads=model.heads,
            num_key_value_heads=model.heads,
            max_position_embeddings=model.context,
            tie_word_embeddings=True,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=None,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def packed(texts: Sequence[Sequence[int]], start: int, model: BuiltinModel, seed: int) -> list[Batch]:
    """Texts end to end, cut into full rows, the rows in one drawn order after another until the budget is reached."""
    stream = [token for text in texts for token in (start, *text)]
    length = min(ROW_TOKENS, model.context, len(stream))
    rows = [tuple(stream[first : first + length]) for first in range(0, len(stream) - length + 1, length)]
    per_step = max(1, STEP_TOKENS // length)
    steps = max(1, model.base_tokens // (per_step * length))
    order = _passes(len(rows), random.Random(seed))
    return [
        Batch(
            epoch=step * per_step // len(rows),
            examples=tuple(Example(f"row {place}", rows[place], 1, 0) for place in (next(order) for _ in range(per_step))),
        )
        for step in range(steps)
    ]


def _passes(count: int, source: random.Random) -> Iterator[int]:
    while True:
        places = list(range(count))
        source.shuffle(places)
        yield from places


def _train_texts(home: Home, shard: ShardRef, exclusions: Exclusions) -> list[str]:
    folder = home.root / shard.path
    meta = read_meta(folder, shard.sha256, columns=("chunk_id", "thread_id", "split")).to_pylist()
    wanted = [
        row["chunk_id"]
        for row in meta
        if row["split"] == Split.TRAIN and not exclusions.hold(row["thread_id"], row["chunk_id"])
    ]
    texts = read_texts(folder, shard.sha256, wanted)
    return [texts[chunk_id] for chunk_id in wanted]
