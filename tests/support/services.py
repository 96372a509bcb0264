"""What a test needs of the machine beyond Python: programs and servers that some machines have and others do not."""

from __future__ import annotations

import os

import pytest


def require(what: str, present: bool, how: str) -> None:
    """Skips the test when ``what`` is not ``present``, and says ``how`` to get it: a command.

    Where ``CI`` is set the test fails instead: there everything must be, or a test that never ran would count as passed.
    """
    if present:
        return
    message = f"{what} is missing: {how}"
    if os.environ.get("CI"):
        pytest.fail(message, pytrace=False)
    pytest.skip(message)
