"""Bases that cannot be trained on: found from their files before a run is asked for, and from what they do when loaded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertForMaskedLM, BertLMHeadModel

from pipeline.capacity.bases import not_here, require_usable
from pipeline.config.settings import ModelSettings
from pipeline.errors import RunError
from pipeline.home import sha256_folder
from pipeline.runs.requests import AdapterRef, RunRequest
from retrain.models.adapters import CONFIG, WEIGHTS
from retrain.models.base import learn_tokenizer, new_network
from retrain.models.fitness import require_causal, require_vocabulary, vocabulary_of
from retrain.models.model import choose_compute, load_base, load_tokenizer
from retrain.run import execute
from retrain.study import open_study
from tests.support.mailroom import TINY, Mailroom, letters

COMPUTE = choose_compute(ModelSettings(), 1)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bases") / "base"
    tokenizer = learn_tokenizer([chunk.text for chunk in letters(0)], TINY)
    tokenizer.save_pretrained(str(folder))
    torch.manual_seed(1)
    new_network(TINY, tokenizer).save_pretrained(str(folder))
    return folder


@pytest.fixture
def copy(base: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(base, tmp_path / "copy"))


def test_a_whole_base_is_taken(base: Path) -> None:
    require_usable(base, "cpt")


def test_what_is_missing_or_cut_short_is_named(copy: Path) -> None:
    weights = copy / "model.safetensors"
    data = weights.read_bytes()
    weights.write_bytes(data[:-100])
    with pytest.raises(RunError, match=rf"model\.safetensors is cut short: {len(data) - 100:,} of {len(data):,} bytes"):
        require_usable(copy, "cpt")
    weights.write_bytes(data[:4])
    with pytest.raises(RunError, match=r"model\.safetensors is cut short: 4 bytes"):
        require_usable(copy, "cpt")
    weights.write_bytes(data[:8] + b"x" * (len(data) - 8))
    with pytest.raises(RunError, match=r"model\.safetensors is damaged"):
        require_usable(copy, "cpt")
    weights.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 914832\n")
    with pytest.raises(RunError, match=r"model\.safetensors is a pointer of Git LFS, not the weights; .*`git lfs pull`"):
        require_usable(copy, "cpt")
    weights.rename(copy / "pytorch_model.bin")
    with pytest.raises(RunError, match=r"pytorch_model\.bin, which could run code"):
        require_usable(copy, "cpt")
    (copy / "pytorch_model.bin").unlink()
    with pytest.raises(RunError, match=r"has no model\.safetensors"):
        require_usable(copy, "cpt")
    weight_map = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (copy / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    (copy / "model-00001-of-00002.safetensors").write_bytes(data)
    with pytest.raises(RunError, match=r"model-00002-of-00002\.safetensors is missing; fetch it again"):
        require_usable(copy, "cpt")
    (copy / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(RunError, match=r"index\.json is damaged \(it names no file of weights\)"):
        require_usable(copy, "cpt")


def test_a_folder_that_is_not_there_is_not_to_be_fetched() -> None:
    for path in ("/models/gone", "./gone", "~/gone"):
        assert (
            str(not_here(path)) == f"there is no folder {path}, which model.base names; set model.base to a model's folder"
        )
    assert "model.allow_download" in str(not_here("maker/model"))


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_files_beside_the_weights_are_looked_at_too(copy: Path, name: str) -> None:
    path = copy / name
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(RunError, match=rf"{name} is damaged"):
        require_usable(copy, "cpt")
    path.unlink()
    with pytest.raises(RunError, match=rf"has no {name}"):
        require_usable(copy, "cpt")


def test_replies_need_a_chat_template(copy: Path) -> None:
    with pytest.raises(RunError, match="no chat template"):
        require_usable(copy, "reply")
    (copy / "chat_template.jinja").write_text("{{ messages[0].content }}")
    require_usable(copy, "reply")


def test_a_model_that_looks_ahead_is_refused_by_name_and_by_deed(tmp_path: Path, base: Path) -> None:
    torch.manual_seed(1)
    config = BertConfig(
        vocab_size=64,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
    )  # of small random weights, through which a look ahead hardly shows
    BertForMaskedLM(config).save_pretrained(str(tmp_path))
    shutil.copy(base / "tokenizer.json", tmp_path)
    with pytest.raises(RunError, match=r"no causal language model \(BertForMaskedLM\)"):
        require_usable(tmp_path, "cpt")
    with pytest.raises(RunError, match="looks at the text after a token"):
        require_causal(BertLMHeadModel(config).eval(), COMPUTE)
    config.is_decoder = True
    require_causal(BertLMHeadModel(config).eval(), COMPUTE)


def test_a_base_without_some_of_its_weights_is_refused_when_it_is_loaded(copy: Path) -> None:
    weights = load_file(copy / "model.safetensors")
    gone = next(name for name in sorted(weights) if "q_proj" in name)
    save_file(
        {name: tensor for name, tensor in weights.items() if name != gone}, copy / "model.safetensors", {"format": "pt"}
    )
    for quantize in (True, False):
        with pytest.raises(RunError, match=f"lacks weights that its config.json asks for, {gone} among 1; fetch it again"):
            load_base(copy, COMPUTE, quantize=quantize)
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"hidden_size": 32}))
    with pytest.raises(RunError, match=r"weights of other shapes than its config\.json says"):
        load_base(copy, COMPUTE, quantize=False)


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_weights_that_are_no_number_are_told_before_training(base: Path, wrong: float) -> None:
    for quantize in (True, False):
        require_causal(load_base(base, COMPUTE, quantize=quantize), COMPUTE)
    model = load_base(base, COMPUTE, quantize=False)
    model.model.layers[1].self_attn.q_proj.weight[3, 3] = wrong
    with pytest.raises(RunError, match="its weights are damaged; fetch it again"):
        require_causal(model, COMPUTE)


@pytest.fixture(scope="module")
def promoted(tmp_path_factory: pytest.TempPathFactory) -> Mailroom:
    """A home with one promoted run."""
    room = Mailroom(tmp_path_factory.mktemp("home"))
    room.close()
    request = room.ask()
    room.promote(request, execute(room.home, request.run_id, lambda progress: None))
    room.close()
    return room


def test_another_vocabulary_than_the_champions_is_refused(promoted: Mailroom) -> None:
    request = promoted.ask()
    tokenizer = load_tokenizer(promoted.home.root / request.base.path)
    require_vocabulary(promoted.home, request, tokenizer)
    tokenizer.add_tokens(["harbourmaster"])
    with pytest.raises(RunError, match=f"another vocabulary .*than {request.base.path} has .{vocabulary_of(tokenizer)}"):
        require_vocabulary(promoted.home, request, tokenizer)


def forged(room: Mailroom, name: str, **config: object) -> RunRequest:
    """The next request, its parent replaced by a copy whose configuration says something else."""
    request = room.ask()
    assert request.parent is not None
    folder = room.home.adapter(name)
    shutil.copytree(room.home.root / request.parent.path, folder)
    told = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps({**told, **config}))
    return request.model_copy(update={"parent": parent_at(room, request.parent, name)})


def parent_at(room: Mailroom, parent: AdapterRef, name: str) -> AdapterRef:
    sha256 = sha256_folder(room.home.adapter(name))
    return parent.model_copy(update={"path": f"adapters/{name}", "sha256": sha256})


def opened(room: Mailroom, request: RunRequest) -> None:
    from pipeline.runs.plan import prepare_run
    from pipeline.runs.runfiles import Exclusions

    asked = room.ask()
    prepared = prepare_run(room.home, asked, room.home.run(asked.run_id))
    open_study(room.home, request, prepared, Exclusions(), room.home.root / request.base.path, COMPUTE)


def test_an_adapter_of_another_base_rank_or_shape_is_refused(promoted: Mailroom) -> None:
    with pytest.raises(RunError, match="was made for base b-other, not for"):
        opened(promoted, forged(promoted, "other-base", base_model_name_or_path="b-other"))
    ranked = promoted.ask()
    larger = ranked.settings.train.model_copy(update={"lora_r": 8})
    with pytest.raises(RunError, match="has rank 4 and alpha 8, the settings ask for 8 and 8"):
        opened(promoted, ranked.model_copy(update={"settings": ranked.settings.model_copy(update={"train": larger})}))
    request = forged(promoted, "fewer")
    weights = promoted.home.adapter("fewer") / WEIGHTS
    tensors = load_file(weights)
    missing = sorted(tensors)[0]
    save_file({name: value for name, value in tensors.items() if name != missing}, weights)
    assert request.parent is not None
    request = request.model_copy(update={"parent": parent_at(promoted, request.parent, "fewer")})
    with pytest.raises(RunError, match=f"other weights than its configuration says, {missing}"):
        opened(promoted, request)
    request = forged(promoted, "wider")
    weights = promoted.home.adapter("wider") / WEIGHTS
    save_file({name: torch.cat([value, value], dim=-1) for name, value in tensors.items()}, weights)
    assert request.parent is not None
    request = request.model_copy(update={"parent": parent_at(promoted, request.parent, "wider")})
    with pytest.raises(RunError, match="does not fit the base, which has another vocabulary or shape"):
        opened(promoted, request)
