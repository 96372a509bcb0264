"""Killed before every effect of a promotion and its deployment: never two champions, never a half-loaded adapter, and the
next life ends where an undisturbed one does."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.deploy_kills import kill_everywhere
from tests.support.vllm import fake_vllm

KILLS = 12
"""In the ordinary suite, spread over the effects there are; the benches kill before every one."""


def test_kills_at_any_step_leave_one_champion_whole_and_served(tmp_path: Path) -> None:
    with fake_vllm() as vllm:
        kills, effects = kill_everywhere(tmp_path, vllm, KILLS)
    assert kills >= min(KILLS, effects) // 2


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_two_hundred_kills(tmp_path: Path) -> None:
    killed = 0
    for seed in range(10):
        if killed >= 200:
            break
        with fake_vllm() as vllm:
            killed += kill_everywhere(tmp_path / str(seed), vllm, 1_000, seed)[0]
    assert killed >= 200
