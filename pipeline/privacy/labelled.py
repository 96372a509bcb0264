"""Secrets that only the words before them tell: ``password: ...``, ``API_KEY=...``, "the passphrase is ...".

A word in a sentence is left alone, as in "the password is wrong": what a label names must look like a secret, be quoted,
or be the only thing on its line. So a password that is a plain word in running text stays.
"""

from __future__ import annotations

import math
import re
from collections import Counter

from pipeline.privacy.credentials import Mark

PASSWORD, API_KEY = "password", "api-key"

_WORDS = ("pass", "pwd", "kennwort", "contrase", "wachtwoord", "senha", "lösenord", "adgangskode", "salasana")
_KEYS = ("key", "token", "secret", "sessid", "sessionid")
_PIN = re.compile(r"\b(?:PIN|TAN|OTP)(?: (?:code|number|is))?(?::| is|=)[ \t]{0,4}(?P<value>\d{4,8})\b")
_SAID = r"""
    (?P<close>["']?\]?)
    (?:(?P<sign>[ \t]{0,9}(?::=|=>|->|:|=)[ \t]{0,9}(?P<below>\n[ \t>|]{0,9})?)|(?P<tag>>)
      |(?:[ ](?:for|to|of|on)(?:[ ][\w.@-]{1,40}){1,4})?[ ]
       (?:(?:(?:has[ ]been|was|is)[ ](?:now[ ])?)?(?:set|reset|changed)[ ]to
         |(?:is|was|will[ ]be|ist|lautet|est|es|[eé]|är|er)(?:[ ]now)?):?[ ])
    (?P<quote>["'`]?)(?P<value>[^\s"'`<>]{4,200})(?P=quote)(?=(?P<rest>[^\n]{0,100}))"""
_WORD = re.compile(
    rf"(?P<label>pass(?:words?|wd|phrase|code|wort|ord|es?)?|pwd|kennwort|contraseñas?|contrasena|wachtwoord|senha|lösenord"
    rf"|adgangskode|salasana){_SAID}",
    re.VERBOSE | re.IGNORECASE,
)
_KEY = re.compile(rf"(?:key|token|secret|sessid|sessionid){_SAID}", re.VERBOSE | re.IGNORECASE)
_QUALIFIED = re.compile(
    r"(?:api|access|secret|auth|private|client|app|application|consumer|encryption|signing|session|refresh|bearer|deploy"
    r"|storage|account|master|shared|webhook|service|bot|licen[cs]e|aws|PHP|J)[ _-]?\Z|[A-Za-z0-9]_\Z",
    re.IGNORECASE,
)
_CALL_OR_INDEX = re.compile(r"[\w.:>$&*-]{1,200}[(\[]")
_NO_SECRET = re.compile(
    r"(.)\1{0,200}\Z|\[masked:|[%$]\w{1,200}\Z|\$?\{|(?:your|my)[_-]?\w{0,200}\Z|(?:none|null|true|false|redacted|n/a)\Z"
    r"|xxx|~|/(?![A-Za-z0-9+/]{39}\Z)|\./|https?:",
    re.IGNORECASE,
)
_NAME = re.compile(r"[A-Za-z]{1,40}(?:[_.:/>-]{1,2}[A-Za-z]{1,40}){0,9}\d{0,3}\Z")
"""Like a name in code, in whose parts no digit stands but at the end."""
_EXPRESSION = re.compile(r"[A-Za-z_][\w.]{0,80}\Z")
_NAME_SERVICES = frozenset({"compat", "files", "nisplus", "systemd", "ldap", "winbind", "system-auth"})
"""What stands after ``passwd:`` in an nsswitch.conf."""
LINE_START = 100
"""Characters before a label in which its line must begin to be one that holds nothing else."""
LONG_SECRET = 12
"""Characters from which the value of a named key counts as one; what is shorter is mostly a name in code."""
LONGER_SECRET = 16
"""The same where ``token`` or ``secret`` stands without a word that says of what."""
ENTROPY = 2.5
"""Bits per character, by how often each occurs, below which no value of a key is one."""


def replace_labelled(text: str, mark: Mark) -> str:
    """The text with the value of every label that names a secret replaced by what ``mark`` gives for it."""
    if "PIN" in text or "TAN" in text or "OTP" in text:
        text = _PIN.sub(lambda found: found[0][: -len(found["value"])] + mark("pin", found["value"]), text)
    lower = _lower(text)
    places = [(at, _WORD, PASSWORD) for word in _WORDS for at in _occurrences(lower, word)]
    places += [(at, _KEY, API_KEY) for word in _KEYS for at in _occurrences(lower, word)]
    if not places:
        return text
    written: list[str] = []
    done = 0
    for at, expression, kind in sorted(places, key=lambda place: place[0]):
        found = expression.match(text, at) if at >= done else None
        value = "" if found is None else _value(found)
        if found is None or not (_is_password(found, value) if kind == PASSWORD else _is_key(found, value)):
            continue
        start = found.start("value")
        written += (text[done:start], mark(kind, value))
        done = start + len(value)
    return "".join((*written, text[done:]))


def _lower(text: str) -> str:
    """Lower case, letter for letter: a few letters become two."""
    lower = text.lower()
    return lower if len(lower) == len(text) else "".join(letter.lower()[0] for letter in text)


def _occurrences(text: str, word: str) -> list[int]:
    found = []
    at = text.find(word)
    while at >= 0:
        found.append(at)
        at = text.find(word, at + len(word))
    return found


def _value(found: re.Match[str]) -> str:
    """The value without what follows it in a list of settings, a query or a sentence."""
    value = found["value"]
    if found["quote"]:
        return value
    if found["sign"] is not None:
        before = found.string[: found.start()][-LINE_START:].rpartition("\n")[2]
        if "?" in before or "&" in before:  # a query in a URL
            value = value.partition("&")[0]
        if found["sign"].strip() == "=":  # a connection string
            value = value.partition(";")[0]
    return value.rstrip(".,;:!?)")


def _is_password(found: re.Match[str], value: str) -> bool:
    if len(value) < 4 or _NO_SECRET.match(value) or (found["tag"] and not _opens_tag(found)):
        return False
    if found["quote"] or found["tag"]:
        return True
    letters, digits, others = _classes(value)
    if _CALL_OR_INDEX.match(value) and not ((found["sign"] or "").strip() == ":" and _stands_alone(found)):
        return False
    if found["label"].lower() in ("pass", "passes") and found["sign"] is not None:
        return digits and letters and len(value) >= 6 and not _NAME.match(value) and not _is_code(found, value)
    if found["below"] is not None:
        return digits and letters and _stands_alone(found)
    if digits and (letters or found["sign"]):
        return not _is_code(found, value)
    if others and letters and len(value) >= 8 and found["sign"] is not None and not _NAME.match(value):
        return not _is_code(found, value)
    return found["sign"] is not None and _stands_alone(found) and value.lower() not in _NAME_SERVICES


def _is_key(found: re.Match[str], value: str) -> bool:
    if found["tag"] and not _opens_tag(found):
        return False
    before = found.string[max(0, found.start() - 16) : found.start()]
    named = bool(_QUALIFIED.search(before)) or found[0][:4].lower() == "sess"
    if not named and (found[0][:3].lower() == "key" or before[-1:].isalpha()):
        return False
    letters, digits, _ = _classes(value)
    if not (letters and digits) or len(value) < (LONG_SECRET if named else LONGER_SECRET) or found["below"] is not None:
        return False
    if _NO_SECRET.match(value) or _NAME.match(value) or _CALL_OR_INDEX.match(value):
        return False
    return entropy(value) >= ENTROPY


def entropy(text: str) -> float:
    """Bits per character, by how often each character occurs in the text; 0 for an empty one."""
    total = len(text)
    return -sum(count / total * math.log2(count / total) for count in Counter(text).values()) if text else 0.0


def _classes(value: str) -> tuple[bool, bool, bool]:
    """Whether it holds letters, digits, and anything else."""
    letters = any(character.isalpha() for character in value)
    digits = any(character.isdigit() for character in value)
    return letters, digits, not value.isalnum()


def _opens_tag(found: re.Match[str]) -> bool:
    """Whether the label is the name of an element, as in ``<password>...</password>``."""
    return "<" in found.string[max(0, found.start() - 20) : found.start()] and found["rest"].startswith("</")


def _is_code(found: re.Match[str], value: str) -> bool:
    """Whether the value is an expression in a program, as in ``war_pass = PASS2_2;`` or ``pwd: x->y1``."""
    ends_statement = found["value"][len(value) : len(value) + 1] == ";" and " = " in found[0]
    return "->" in value or (ends_statement and _EXPRESSION.match(value) is not None)


def _stands_alone(found: re.Match[str]) -> bool:
    """Whether the label begins its line, quote marks and bullets apart, and nothing follows the value."""
    near = max(0, found.start() - LINE_START)
    line = found.string.rfind("\n", near, found.start())
    if line < 0 and near:
        return False
    return not found.string[line + 1 : found.start()].strip(" \t>|*-") and not found["rest"].strip()
