"""Kills before every effect of a promotion and its deployment, and what must hold at any moment between them."""

from __future__ import annotations

import random
import shutil
from contextlib import AbstractContextManager
from pathlib import Path

from pipeline.config.configuration import write_home
from pipeline.config.settings import Settings
from pipeline.home import Home, sha256_folder
from pipeline.store import Store
from pipeline.store.rows import AdapterRow, JournalRow
from registry.deploy.standing import standing
from registry.deploy.vllm import read_alias
from registry.journal import Status, fold
from tests.support.finished import Finished
from tests.support.lineage import MAILBOX
from tests.support.lives import Lives, lives
from tests.support.vllm import FakeVllm


def promoting(home: Home) -> AbstractContextManager[Lives]:
    """Lives that carry out the home's work."""
    return lives("tests.support.promoting", str(home.root))


def prepare(root: Path, vllm: FakeVllm) -> Finished:
    """A home with a champion that serves, and a finished run that is better and not decided."""
    settings = Settings.model_validate({"deploy": {"vllm": {"url": vllm.url, "drain": 0}}})
    runs = Finished.at(root, settings)
    write_home(runs.home, settings)
    runs.step()
    with promoting(runs.home) as served:
        runs.store.close()
        assert served.live(0)[0] == 0
    runs.store = Store.open(runs.home, None, None)
    runs.close_window()
    asked = runs.request()
    runs.finish(asked, new=-0.2)
    runs.store.close()
    return runs


def check(home: Home, vllm: FakeVllm, *, champions: set[str]) -> str | None:
    """What must hold at any moment; returns the champion."""
    with Store.open(home, None, None) as store:
        state = fold(store.fetch(JournalRow, order="ordinal"))
        digests = {row.adapter_id: row.sha256 for row in store.fetch(AdapterRow)}
    reigning = [one.adapter_id for one in state.adapters.values() if one.status is Status.CHAMPION]
    assert len(reigning) == 1 and reigning[0] in champions
    link = home.champion_link(MAILBOX).resolve()
    assert link.name in champions and sha256_folder(link) == digests[link.name]
    alias = read_alias(home, MAILBOX)
    assert alias is not None and alias.adapter_id in champions
    assert alias.model in vllm.loaded, "whoever asks for the champion is answered"
    for path in vllm.loaded.values():
        assert sha256_folder(Path(path)) == digests.get(Path(path).name, sha256_folder(Path(path)))
    return reigning[0]


def kill_everywhere(tmp_path: Path, vllm: FakeVllm, most: int, seed: int = 7) -> tuple[int, int]:
    """Kills before each effect in turn (``most`` of them at most, evenly spread), and the next life somewhere, too; returns
    how many kills there were, and how many effects an undisturbed life has."""
    runs = prepare(tmp_path / "template", vllm)
    home, template = Home(tmp_path / "home"), runs.home.root
    rng = random.Random(seed)
    kills = 0
    (before,) = [row.adapter_id for row in _adapters(runs.home)]
    loaded = {name: path.replace(str(template), str(home.root)) for name, path in vllm.loaded.items()}
    with promoting(home) as lived:

        def again() -> None:
            shutil.rmtree(home.root, ignore_errors=True)
            shutil.copytree(template, home.root, symlinks=True)
            vllm.loaded = dict(loaded)

        again()
        code, effects = lived.live(0)
        assert code == 0 and effects > 20
        champion = check(home, vllm, champions={_newest(home)})
        assert champion != before and set(vllm.loaded) == {f"mailtide-{champion}"}
        step = max(1, -(-effects // most))
        for doomed in range(1 + rng.randrange(step), effects + 1, step):
            again()
            for number in (doomed, rng.randrange(1, effects + 1)):
                code, _ = lived.live(number)
                assert code in (0, -9), f"killed before effect {number}"
                kills += code == -9
                check(home, vllm, champions={before, str(champion)})
            assert lived.live(0)[0] == 0
            assert check(home, vllm, champions={str(champion)}) == champion
            assert set(vllm.loaded) == {f"mailtide-{champion}"}, "nothing is left behind"
            for target in ("symlink", "vllm"):
                here = standing(home, target, MAILBOX)
                assert (here.adapter_id, here.step, here.trouble, here.leftovers) == (champion, "", "", ())
    return kills, effects


def _adapters(home: Home) -> list[AdapterRow]:
    with Store.open(home, None, None) as store:
        return store.fetch(AdapterRow, order="created_at")


def _newest(home: Home) -> str:
    return _adapters(home)[-1].adapter_id
