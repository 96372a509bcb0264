"""Further secrets by another library: what it adds to our own forms, offline and alike for a version that freezes."""

from __future__ import annotations

import random
import socket
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from pipeline.config.settings import PrivacySettings, Settings
from pipeline.errors import ConfigError
from pipeline.home import Home
from pipeline.privacy.detectors import find_detected, installed_versions
from pipeline.privacy.scrub import count_masked, mask_credentials, masker, placeholder
from pipeline.store import Store
from streams.owning.stores import opener
from tests.support.deliveries import Mailbox, fillers
from tests.support.rows import VERSIONS, new_store
from tests.support.secrets import KINDS, OF_OTHERS, plant, planted_into

pytest.importorskip("detect_secrets", reason="pip install 'mailtide[secrets]'")

BOTH = PrivacySettings(detectors=("detect-secrets",))
MASK = masker(BOTH)
WORDS = "Hello,\n\nas said on the phone, see https://www.example.org/a/b?c=d and commit 2f5e3a9c8b7d6e5f.\n\n> quoted\nBye"
RUNNER = "GR1348941" + "aB3xY6zQ" * 3


def test_kinds_that_only_the_library_knows_are_masked() -> None:
    planted = plant(OF_OTHERS, 240, seed=3)
    texts = [planted_into(WORDS, one, random.Random(3)) for one in planted]
    masked = [MASK(text) for text in texts]
    assert [one.text for one, text in zip(planted, masked, strict=True) if one.secrets[0] in text] == []
    assert sum(one.secrets[0] in mask_credentials(text) for one, text in zip(planted, texts, strict=True)) > 150
    assert all(count_masked(text).total() == 1 for text in masked)
    assert [MASK(text) for text in texts] == masked
    assert [MASK(text) for text in masked] == masked


def test_what_our_own_forms_find_is_masked_as_before() -> None:
    texts = [planted_into(WORDS, one, random.Random(4)) for one in plant(KINDS, 400, seed=4)]
    assert [MASK(text) for text in texts] == [mask_credentials(text) for text in texts]
    assert MASK(WORDS) == WORDS


def test_the_secret_goes_and_what_is_around_it_stays() -> None:
    text = f'key "AKC{"a1B2" * 8}" and {RUNNER}, twice: {RUNNER}.\n\nBye '
    assert MASK(text) == (
        f'key "{placeholder("artifactory-token")}" and {placeholder("gitlab-token")}, '
        f"twice: {placeholder('gitlab-token')}.\n\nBye "
    )


def test_a_closed_window_holds_none(tmp_path: Path) -> None:
    mailbox = Mailbox(tmp_path, 'privacy.detectors=["detect-secrets"]')
    with opener(mailbox.home, mailbox.settings)() as store:
        mailbox.deliver([*fillers(5, 0), ("train", f"register it with {RUNNER} and password: hunter22")], store)
        assert store.query("SELECT kind, n FROM masked ORDER BY kind") == [("gitlab-token", 1), ("password", 1)]
    text = pq.read_table(mailbox.home.shard("main", 0) / "text.parquet")["text"].to_pylist()
    assert any("register it with [masked:gitlab-token] and password" in one for one in text)


def test_nobody_is_asked_whether_a_secret_is_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    """detect-secrets can ask a service; here it must not, whatever it finds."""

    def refused(*address: Any) -> None:
        raise AssertionError(f"asked {address}")

    monkeypatch.setattr(socket.socket, "connect", refused)
    monkeypatch.setattr(socket, "getaddrinfo", refused)
    for one in plant(OF_OTHERS, 24, seed=5):
        assert one.secrets[0] not in MASK(one.text)


UNITS = ("eyJ", "AKC1", "key:", "https://a:", "cloudant_key ", "aws key ", "glagent-", "M", "1:", " ", " := ", "iam=", '"a')


@pytest.mark.parametrize("unit", UNITS)
def test_time_stays_linear_on_hostile_text(unit: str) -> None:
    """One long line, on which an expression could take time by the square; the test's time limit is the judge."""
    assert find_detected(unit * (200_000 // len(unit)), lambda kind, secret: placeholder(kind))


def test_a_long_line_is_searched_to_its_end() -> None:
    assert count_masked(MASK("word " * 1_000 + RUNNER)) == {"gitlab-token": 1}


def test_the_version_freezes_with_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = Home(tmp_path / "home")
    settings = Settings(privacy=BOTH)
    (version,) = installed_versions(["detect-secrets"])
    new_store(home.root, settings).close()
    Store.open(home, settings, VERSIONS).close()
    with pytest.raises(ConfigError, match=r"privacy\.detectors is \[\] in the settings, but frozen as \[\"" + version):
        Store.open(home, Settings(), VERSIONS)

    other = tmp_path / "site" / "detect_secrets-9.9.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.4\nName: detect-secrets\nVersion: 9.9\n")
    monkeypatch.syspath_prepend(str(other.parent))
    with pytest.raises(
        ConfigError, match=r"is \[\"detect-secrets 9\.9\"\] on this machine.*" + version + ".*install that version"
    ):
        Store.open(home, settings, VERSIONS)


def test_a_store_from_before_there_were_detectors_has_none_for_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.store import frozen, store

    def before(settings: Settings) -> dict[str, object]:
        return {name: value for name, value in frozen.frozen_settings(settings).items() if name not in frozen.ADDED}

    home = Home(tmp_path / "home")
    with monkeypatch.context() as then:
        then.setattr(store, "frozen_settings", before)
        new_store(home.root).close()
    Store.open(home, Settings(), VERSIONS).close()
    with pytest.raises(ConfigError, match=r"privacy\.detectors is .* but frozen as \[\]"):
        Store.open(home, Settings(privacy=BOTH), VERSIONS)


def test_a_package_that_is_absent_is_named_with_what_to_do() -> None:
    with pytest.raises(ConfigError, match="names no-such-detector, which is not installed") as refused:
        installed_versions(["no-such-detector"])
    assert "secrets" in refused.value.hint and "privacy.detectors" in refused.value.hint


def test_detectors_add_to_our_own_forms() -> None:
    with pytest.raises(ValidationError, match="need mask_credentials"):
        PrivacySettings(mask_credentials=False, detectors=("detect-secrets",))
