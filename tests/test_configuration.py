"""Settings: one default each, every mistake at once, and the files under configs/ that people copy from."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from pipeline.config.configuration import load, read_home, rows, write_home
from pipeline.config.settings import Settings
from pipeline.errors import ConfigError
from pipeline.home import Home
from streams.demo.tour import CONFIG, differences
from tests.conftest import REPOSITORY

CONFIGS = sorted((REPOSITORY / "configs").glob("*.yaml"))


def test_the_default_file_lists_every_setting_with_its_default() -> None:
    tree = yaml.safe_load((REPOSITORY / "configs" / "default.yaml").read_text())

    def names(node: dict[str, object], prefix: str = "") -> set[str]:
        found: set[str] = set()
        for name, value in node.items():
            if isinstance(value, dict) and value:
                found |= names(value, f"{prefix}{name}.")
            else:
                found.add(prefix + name)
        return found

    assert names(tree) == {name for name, _, _ in rows()}
    assert load(REPOSITORY / "configs" / "default.yaml", environment={}) == Settings()


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.name)
def test_every_configuration_we_ship_can_be_read(file: Path) -> None:
    assert len(CONFIGS) >= 3
    load(file, environment={})


def test_every_setting_says_what_it_means() -> None:
    assert [name for name, _, meaning in rows() if not meaning] == []


def test_the_demo_gives_a_reason_for_each_setting_it_changes() -> None:
    changed = differences(load(CONFIG, environment={}))
    assert len(changed) > 5
    assert all(why for _, _, _, why in changed)


def test_later_sources_win(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("train: {epochs: 3, lr: 1.0e-4}\n")
    settings = load(file, environment={"MAILTIDE_TRAIN__EPOCHS": "4", "MAILTIDE_HOME": "/x"}, overrides=["train.lr=5e-3"])
    assert (settings.train.epochs, settings.train.lr) == (4, 5e-3)


def test_every_mistake_is_told_at_once() -> None:
    with pytest.raises(ConfigError) as told:
        load(None, environment={}, overrides=["split.train=0.6", "train.lora_r=0", "trian.epochs=3", "seed"])
    assert len(told.value.problems) == 4
    sentence = str(told.value)
    for part in ("4 problems", "train + val + test must be 1, not 0.8", "train.lora_r", "trian is not a setting", "--set"):
        assert part in sentence


@pytest.mark.parametrize(("width", "told"), [(64, "heads=4 would do"), (65, "it must be even")])
def test_heads_that_cannot_share_the_width_are_told_before_there_is_a_home(width: int, told: str) -> None:
    with pytest.raises(ConfigError, match=f"width {width} is not a multiple of twice the 6 heads; {told}"):
        load(None, environment={}, overrides=[f"model.builtin.width={width}"])


@pytest.mark.parametrize("text", ["- 1\n", "{", "\x00"])
def test_a_file_that_holds_no_settings_is_named(tmp_path: Path, text: str) -> None:
    file = tmp_path / "broken.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"broken\.yaml"):
        load(file, environment={})


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml.*No such file"):
        load(tmp_path / "nowhere.yaml", environment={})


def test_a_home_keeps_only_what_differs(tmp_path: Path) -> None:
    home = Home(tmp_path)
    settings = load(None, environment={}, overrides=["seed=9", "mailboxes.main.clock=header"])
    write_home(home, settings)
    assert read_home(home, environment={}) == settings
    kept = yaml.safe_load(home.config.read_text())
    assert kept == {"seed": 9, "mailboxes": {"main": {"clock": "header"}}}
    assert home.config.stat().st_mode & 0o777 == 0o600
