"""Deployment of adapters that were trained, to what runs them: the server, and a whole model in a folder."""

from __future__ import annotations

import shutil
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from pipeline.errors import DeployError
from pipeline.events import AdapterPromoted
from pipeline.home import Home, sha256_folder, write_atomic
from registry.deploy.converging import converge
from registry.deploy.merged import CURRENT, KEPT_DAYS, Merged
from registry.deploy.server import Server
from registry.deploy.standing import Standing
from tests.support.served import MAILBOX, SENTENCES, Served, make_served
from tests.support.servers import SECONDS, server

AT = datetime(2026, 3, 1)
pytestmark = pytest.mark.timeout(900)  # processes import what a model needs, which takes minutes on a busy machine


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Served:
    return make_served(tmp_path_factory.mktemp("models") / "home")


def promotion(served: Served, name: str, ordinal: int) -> AdapterPromoted:
    ref = served.adapters[name]
    return AdapterPromoted(
        mailbox=MAILBOX, adapter_id=ref.adapter_id, path=ref.path, sha256=ref.sha256, journal_ordinal=ordinal
    )


def test_the_server_is_brought_to_a_promotion_and_keeps_the_former_one_when_it_is_ill(served: Served) -> None:
    with server(served.home) as running:
        target = Server(f"http://127.0.0.1:{running.port}", SECONDS, lambda: running.token)

        def bring(promoted: AdapterPromoted) -> Standing:
            return converge(served.home, target, promoted, lambda: AT)

        first = bring(promotion(served, "ahoy", 11))
        assert (first.adapter_id, first.trouble) == ("aahoy", "")
        assert first.speed is not None and first.speed.tokens > 1
        assert running.ready()["aliases"]["champion"] == "aahoy"
        second = bring(promotion(served, "bread", 12))
        assert (second.adapter_id, second.trouble, running.ready()["aliases"]["champion"]) == ("abread", "", "abread")
        unknown = served.home.adapters / "aghost"
        shutil.copytree(served.home.root / served.adapters["ahoy"].path, unknown)
        write_atomic(unknown / "adapter_model.safetensors", b"no weights at all")
        ghost = promotion(served, "ahoy", 13).model_copy(
            update={"adapter_id": "aghost", "path": "adapters/aghost", "sha256": sha256_folder(unknown)}
        )
        third = bring(ghost)
        assert third.adapter_id == "abread" and "was answered with 4" in third.trouble
        assert running.ready()["aliases"]["champion"] == "abread"
        back = bring(promotion(served, "ahoy", 14))
        assert (back.adapter_id, back.trouble, running.ready()["aliases"]["champion"]) == ("aahoy", "", "aahoy")


@pytest.mark.slow
def test_a_whole_model_says_what_base_and_adapter_say_and_replaces_the_former_in_one_step(
    served: Served, tmp_path: Path
) -> None:
    home = Home(tmp_path / "home")
    shutil.copytree(served.home.root, home.root, ignore=shutil.ignore_patterns("*.sock"))
    target = Merged(home, lambda adapter_id: served.base)
    current = home.merged(MAILBOX) / CURRENT
    first = converge(home, target, promotion(served, "ahoy", 3), lambda: AT)
    assert (first.trouble, current.resolve().name) == ("", "aahoy")
    assert "the tide is turning" in SENTENCES["ahoy"] and "tide" in continued(current, "Ahoy from the harbour, the")
    assert {path.suffix for path in current.resolve().iterdir()} <= {".safetensors", ".json", ".jinja"}
    (home.adapter("abread") / "adapter_config.json").write_text("{")
    broken = promotion(served, "bread", 6).model_copy(update={"sha256": sha256_folder(home.adapter("abread"))})
    ill = converge(home, target, broken, lambda: AT)
    assert (ill.adapter_id, current.resolve().name) == ("aahoy", "aahoy")
    assert "cannot be merged into its base" in ill.trouble
    assert sorted(path.name for path in home.merged(MAILBOX).iterdir()) == ["aahoy", CURRENT]
    shutil.rmtree(home.adapter("abread"))
    shutil.copytree(served.home.adapter("abread"), home.adapter("abread"))
    assert converge(home, target, promotion(served, "bread", 7), lambda: AT).adapter_id == "abread"
    assert (home.merged(MAILBOX) / "aahoy").is_dir(), "kept, so that a return takes no time"
    later = AT + timedelta(days=KEPT_DAYS)
    assert not converge(home, target, promotion(served, "bread", 7), lambda: later).leftovers
    assert not (home.merged(MAILBOX) / "aahoy").exists()


def test_a_base_that_is_only_a_name_cannot_be_merged_into(served: Served) -> None:
    hub = served.base.model_copy(update={"kind": "external", "path": "somebody/a-model"})
    with pytest.raises(DeployError, match="is not a folder here"):
        Merged(served.home, lambda adapter_id: hub).load(promotion(served, "ahoy", 3))


def continued(folder: Path, prompt: str) -> str:
    """What a program without LoRA makes of the folder."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    model = AutoModelForCausalLM.from_pretrained(str(folder), local_files_only=True, use_safetensors=True)
    given = tokenizer(prompt, return_tensors="pt", add_special_tokens=False)["input_ids"]
    return str(tokenizer.decode(model.generate(given, max_new_tokens=24, do_sample=False)[0]))
