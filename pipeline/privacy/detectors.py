"""Credentials of services that our own forms do not know, by setting: detect-secrets has forms of its own for them.

Of its plugins those of :data:`PLUGINS` take part, each by its regular expressions alone: they ask nobody whether a secret
is valid, and what they find depends on the text and the version, which freezes with the store. Why the others stay out is
told, with figures, in ``docs/privacy.md``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from functools import cache
from importlib import import_module, metadata

from pipeline.errors import ConfigError
from pipeline.installing import install_hint
from pipeline.privacy.credentials import LONG_WORD, Mark

PLUGINS = (
    ("artifactory-token", "artifactory", "ArtifactoryDetector"),
    ("aws-key", "aws", "AWSKeyDetector"),
    ("cloudant-key", "cloudant", "CloudantDetector"),
    ("discord-token", "discord", "DiscordBotTokenDetector"),
    ("gitlab-token", "gitlab_token", "GitLabTokenDetector"),
    ("ibm-key", "ibm_cloud_iam", "IbmCloudIamDetector"),
    ("ibm-key", "ibm_cos_hmac", "IbmCosHmacDetector"),
    ("mailchimp-key", "mailchimp", "MailchimpDetector"),
    ("softlayer-key", "softlayer", "SoftlayerDetector"),
    ("square-secret", "square_oauth", "SquareOAuthDetector"),
    ("telegram-token", "telegram_token", "TelegramBotTokenDetector"),
    ("twilio-key", "twilio", "TwilioKeyDetector"),
)
"""Kind, module and class, asked in this order."""

_PIECE = re.compile(r"[^\n]{1,1000}(?!\S)|[^\n]{1,1000}")
"""A line, or so much of one, up to a blank where there is one: some of the library's expressions take time by the square of
a line."""
_AROUND = " \t\"'=:"
"""Some of them take the signs beside a secret, too."""


def find_detected(text: str, mark: Mark) -> str:
    """The text with what ``mark`` gives for each secret that detect-secrets finds, what is masked already left alone.

    Raises ``ConfigError`` where the package is not installed.
    """
    detectors = _detectors()
    return _PIECE.sub(lambda piece: _marked(piece[0], detectors, mark), text)


def installed_versions(names: Collection[str]) -> list[str]:
    """Each detector's package with its version: what it finds may change with another. Raises ``ConfigError``."""
    return [f"{name} {_version(name)}" for name in sorted(names)]


def _marked(piece: str, detectors: Iterable[tuple[str, Callable[[str], Iterable[str]]]], mark: Mark) -> str:
    if not any(len(word) >= LONG_WORD for word in piece.split()):
        return piece
    for kind, strings in detectors:
        for found in strings(piece):
            secret = found.strip(_AROUND)
            if len(secret) >= LONG_WORD and "[masked:" not in secret and secret in piece:
                piece = piece.replace(secret, mark(kind, secret))
    return piece


@cache
def _detectors() -> tuple[tuple[str, Callable[[str], Iterable[str]]], ...]:
    _version("detect-secrets")
    return tuple(
        (kind, getattr(import_module(f"detect_secrets.plugins.{module}"), name)().analyze_string)
        for kind, module, name in PLUGINS
    )


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        problem = f"privacy.detectors names {name}, which is not installed"
        raise ConfigError([problem], hint=f"{install_hint('secrets')}, or make a home without privacy.detectors") from None
