"""Credentials out of text before it is trained on: a model repeats what it has read.

Masked are secrets that show themselves by their shape (keys and tokens of well-known services, private key blocks) or by
what stands before them (``password:``, ``Authorization:``, ``user:...@`` in a URL). A word in a sentence is left alone, as
in "the password is wrong": what a label names must look like a secret, be quoted, or be the only thing on its line. So a
password that is a plain word in running text stays; names, addresses and numbers of people are no credentials and stay.
"""

from __future__ import annotations

import re

SCRUB_VERSION = 1
MASK = "[secret]"

_KEY_BLOCK = re.compile(
    r"-----BEGIN (?:[A-Z0-9]{1,20} ){0,3}PRIVATE KEY(?: BLOCK)?-----"
    r"(?:(?:(?!-----BEGIN).){0,20000}?-----END (?:[A-Z0-9]{1,20} ){0,3}PRIVATE KEY(?: BLOCK)?-----"
    # The end is missing: headers, an empty line and lines of base64 are still the key's.
    r"|(?:\n[ \t>|]*[A-Za-z-]{3,20}: [^\n]{0,100}){0,9}(?:\n[ \t>|]*(?=\n))?"
    r"(?:\n[ \t>|]*[A-Za-z0-9+/=]{16,100}[ \t]*(?=\n|\Z)){0,200})",
    re.DOTALL,
)
_SHAPES = re.compile(
    r"""(?<![A-Za-z0-9_/+-])(?:
      (?:AKIA|ASIA)[A-Z0-9]{16}                                        # AWS access key id
    | gh[pousr]_[A-Za-z0-9]{36,255} | github_pat_[A-Za-z0-9_]{22,255}  # GitHub
    | glpat-[A-Za-z0-9_-]{20,255}                                      # GitLab
    | xox[abeoprs]-[A-Za-z0-9-]{10,255} | xapp-[A-Za-z0-9-]{20,255}    # Slack
    | eyJ[A-Za-z0-9_-]{8,4000}\.eyJ[A-Za-z0-9_-]{8,4000}\.[A-Za-z0-9_-]{8,4000}   # JSON Web Token, RFC 7519
    | sk-(?:[a-z]{2,10}[0-9]{0,2}-){0,2}[A-Za-z0-9_-]{20,255}          # OpenAI, Anthropic and those who copy the form
    | [rs]k_(?:live|test)_[A-Za-z0-9]{16,255}                          # Stripe
    | AIza[A-Za-z0-9_-]{35} | ya29\.[A-Za-z0-9_-]{20,1000}             # Google
    | hf_[A-Za-z0-9]{30,255} | npm_[A-Za-z0-9]{36} | pypi-AgE[A-Za-z0-9_-]{50,1000}
    | SG\.[A-Za-z0-9_-]{16,64}\.[A-Za-z0-9_-]{16,128}                  # SendGrid
    | \$(?:1|2[abxy]|5|6|y)\$[A-Za-z0-9./$=,]{20,255}                  # a line of a shadow file, crypt(5)
    )(?![A-Za-z0-9_])""",
    re.VERBOSE,
)
_SLACK_HOOK = re.compile(r"(https://hooks\.slack\.com/services/)[A-Za-z0-9/]{20,100}")
_URL_PASSWORD = re.compile(r"(://[^\s/:@<>\"'\[\]]{1,100}:)[^\s/@<>\"'\[\]]{1,200}(?=@[A-Za-z0-9\[])")
_AUTHORIZATION = re.compile(
    r"(\bAuthorization[\"']?[ \t]{0,4}[:=][ \t]{0,4}[\"']?(?:(?:Bearer|Basic|Token)[ \t]{1,4}|(?=\S{0,200}\d))"
    r"|\bBearer[ \t]{1,4}(?=\S{20}))[A-Za-z0-9+/=._~-]{8,4000}",
    re.IGNORECASE,
)
_LABELLED = re.compile(
    r"""(?<![A-Za-z])(?:
          (?P<word>pass(?:word|wd|phrase|code)|pwd|passwort|kennwort|mot[ ]de[ ]passe|contraseña|wachtwoord)
          |(?:api|access|secret|auth|private|client)[ _-]?(?:access[ _-]?)?(?:key|token|secret))
        ["']?
        (?:(?P<sign>[ \t]{0,9}(?::|=>?)[ \t]{0,9})
          |(?:[ ](?:for|to|of|on)(?:[ ][\w.@-]{1,40}){1,4})?[ ]
           (?:(?:is|was|ist|est|es)(?:[ ]now)?|(?:(?:has[ ]been|was|is)[ ](?:now[ ])?)?(?:set|reset|changed)[ ]to):?[ ])
        (?P<quote>["'`]?)(?P<value>[^\s"'`<>]{4,200})(?P=quote)(?=(?P<rest>[^\n]{0,100}))""",
    re.VERBOSE | re.IGNORECASE,
)
_LABEL_HINTS = ("pass", "pwd", "kennwort", "contrase", "wachtwoord", "key", "token", "secret")
_CALL_OR_INDEX = re.compile(r"[\w.:>$-]+[(\[].*")
_PLACEHOLDER = re.compile(
    r"(.)\1*\Z|\[secret\].*|[%$]\w+\Z|\$?\{.*|(?:your|my)[_-]?\w*\Z|(?:none|null|true|false)\Z", re.IGNORECASE
)
_NAME_SERVICES = frozenset({"compat", "files", "nisplus", "systemd", "ldap", "winbind"})
"""What stands after ``passwd:`` in an nsswitch.conf."""
LINE_START = 100
"""Characters before a label in which its line must begin to be one that holds nothing else."""
LONG_SECRET = 12
"""Characters from which the value of an API key counts as one; what is shorter is mostly a name in code."""


def mask_credentials(text: str) -> str:
    """The text with each credential found replaced by ``[secret]``; masking again changes nothing."""
    if "PRIVATE KEY" in text:
        text = _KEY_BLOCK.sub(MASK, text)
    text = _SHAPES.sub(MASK, text)
    if "://" in text:
        text = _SLACK_HOOK.sub(rf"\1{MASK}", text)
        text = _URL_PASSWORD.sub(rf"\1{MASK}", text)
    lower = text.lower()
    if "authorization" in lower or "bearer" in lower:
        text = _AUTHORIZATION.sub(rf"\1{MASK}", text)
    if any(hint in lower for hint in _LABEL_HINTS):
        text = _LABELLED.sub(_mask_labelled, text)
    return text


def _mask_labelled(found: re.Match[str]) -> str:
    value = found["value"]
    if found.string[found.start() - 1 : found.start()] in ("?", "&"):  # a query in a URL
        value = value.partition("&")[0]
    if not found["quote"]:
        value = value.rstrip(".,;:!?)")
    if not _is_secret(found, value):
        return found[0]
    start = found.start("value") - found.start()
    return found[0][:start] + MASK + found[0][start + len(value) :]


def _is_secret(found: re.Match[str], value: str) -> bool:
    if len(value) < 4 or _PLACEHOLDER.match(value):
        return False
    letters = any(character.isalpha() for character in value)
    digits = any(character.isdigit() for character in value)
    if found["word"] is None:
        return letters and digits and len(value) >= LONG_SECRET and not _CALL_OR_INDEX.match(value)
    if found["quote"]:
        return True
    if value.startswith(("/", "./", "~", "http:", "https:")) or _CALL_OR_INDEX.match(value):
        return False
    if digits and (letters or found["sign"]):
        return True
    return bool(found["sign"]) and _stands_alone(found) and value.lower() not in _NAME_SERVICES


def _stands_alone(found: re.Match[str]) -> bool:
    """Whether the label begins its line, quote marks and bullets apart, and nothing follows the value."""
    near = max(0, found.start() - LINE_START)
    line = found.string.rfind("\n", near, found.start())
    if line < 0 and near:
        return False
    return not found.string[line + 1 : found.start()].strip(" \t>|*-") and not found["rest"].strip()
