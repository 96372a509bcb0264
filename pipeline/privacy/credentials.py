"""Credentials that show themselves by their shape: keys and tokens of well-known services, key blocks, password hashes,
passwords inside URLs and commands.

Every repetition is bounded, so what an expression may try at one place is bounded too, and a hostile mail costs time in
proportion to its length. Forms are those that the services document; where a form has a prefix it is the ``hints``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

LONG_WORD = 12
"""Characters from which a word may be, or hold, a token: few words of a mail are as long, so the rest is not looked at."""

Mark = Callable[[str, str], str]
"""Gives what stands in the text instead of a secret, from its kind and the secret itself."""


@dataclass(frozen=True, slots=True)
class Shape:
    """One form of a secret. Any text that holds it holds one of ``hints``, as it is written there, and with ``one_word`` in
    a word of at least :data:`LONG_WORD` characters. The group ``secret`` of ``expression`` is what is masked, or all of it
    where there is no such group."""

    kind: str
    hints: tuple[str, ...]
    expression: re.Pattern[str]
    one_word: bool = False


def _marked(found: re.Match[str], kind: str, mark: Mark) -> str:
    if "secret" not in found.re.groupindex:
        return mark(kind, found[0])
    start, end = found.span("secret")
    at = found.start()
    return found[0][: start - at] + mark(kind, found["secret"]) + found[0][end - at :]


def _shape(kind: str, hints: str, expression: str, flags: int = 0) -> Shape:
    return Shape(kind, tuple(hints.split()), re.compile(expression, re.VERBOSE | flags))


def _in_word(kind: str, hints: str, expression: str, flags: int = 0) -> Shape:
    return Shape(kind, tuple(hints.split()), re.compile(expression, re.VERBOSE | flags), one_word=True)


def _token(kind: str, hints: str, expression: str) -> Shape:
    """A token that stands by itself, not inside a longer run of letters."""
    return _in_word(kind, hints, rf"(?<![A-Za-z0-9_+-])(?:{expression})(?![A-Za-z0-9_])")


_BASE64_LINES = r"(?:\n[ \t>|]{0,9}[A-Za-z0-9+/=]{16,100}[ \t]{0,9}(?=\n|\Z)){0,200}"
_BLOCK = r"(?:[A-Z0-9]{1,20}[ ]){0,3}PRIVATE[ ]KEY(?:[ ]BLOCK)?-----"

_DATABASES = "|".join(
    f"(?<={scheme}://)"
    for scheme in (
        *("postgres", "postgresql", "psycopg2", "psycopg", "asyncpg", "mysql", "pymysql", "mariadb", "mongodb", "srv"),
        *("redis", "rediss", "amqp", "amqps", "mssql", "pyodbc", "oracle", "clickhouse"),
    )
)
"""Looks back over the scheme, so that a search goes by ``://``, which is rare."""

SHAPES = (
    Shape(
        "private-key",
        ("PRIVATE KEY-----", "PRIVATE KEY BLOCK-----"),
        re.compile(
            rf"-----BEGIN[ ]{_BLOCK}(?:(?:(?!-----BEGIN).){{0,20000}}?-----END[ ]{_BLOCK}"
            # The end is missing: headers, an empty line and lines of base64 are still the key's.
            r"|(?:\n[ \t>|]{0,9}[A-Za-z-]{3,20}: [^\n]{0,100}){0,9}(?:\n[ \t>|]{0,9}(?=\n))?"
            rf"{_BASE64_LINES})",
            re.DOTALL,
        ),
    ),
    _shape("private-key", "Private-Lines:", rf"Private-Lines:[ ]\d{{1,4}}[ ]?(?P<secret>{_BASE64_LINES})"),  # PuTTY
    _token("private-key", "AGE-SECRET-KEY-1", r"AGE-SECRET-KEY-1[A-Z0-9]{50,70}"),
    _token("aws-key", "AKIA ASIA", r"(?:AKIA|ASIA)[A-Z0-9]{16}"),
    _token("google-key", "AIza ya29. GOCSPX-", r"AIza[A-Za-z0-9_-]{35}|ya29\.[A-Za-z0-9_-]{20,1000}|GOCSPX-[\w-]{28}"),
    _in_word("azure-key", "AccountKey= AccessKey=", r"(?:Account|SharedAccess)Key=(?P<secret>[A-Za-z0-9+/]{40,100}={0,2})"),
    _in_word("azure-key", "sig=", r"[?&]sig=(?P<secret>(?:[A-Za-z0-9_-]|%[0-9A-Fa-f]{2}){40,120})"),
    _token("azure-key", "Q~", r"[A-Za-z0-9_~.-]{3}\dQ~[A-Za-z0-9_~.-]{31,34}"),
    _token(
        "github-token",
        "ghp_ gho_ ghu_ ghs_ ghr_ github_pat_",
        r"gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_[A-Za-z0-9_]{22,255}",
    ),
    _token(
        "gitlab-token",
        "glpat- gldt- glrt- glcbt- glptt- glft- glsoat- gloas-",
        r"gl(?:pat|dt|rt|cbt|ptt|ft|soat|oas)-[A-Za-z0-9_.-]{20,255}",
    ),
    _token("slack-token", "xox xapp-", r"xox[abeoprs]-[A-Za-z0-9-]{10,255}|xapp-[A-Za-z0-9-]{20,255}"),
    _in_word(
        "slack-token", "hooks.slack.com/", r"hooks\.slack\.com/(?:services|workflows)/(?P<secret>[A-Za-z0-9/]{20,100})"
    ),
    _token("stripe-key", "k_live_ k_test_ whsec_", r"[rs]k_(?:live|test)_[A-Za-z0-9]{16,255}|whsec_[A-Za-z0-9+/=]{24,100}"),
    _token("jwt", "eyJ", r"eyJ[A-Za-z0-9_-]{8,4000}\.eyJ[A-Za-z0-9_-]{8,4000}\.[A-Za-z0-9_-]{8,4000}"),  # RFC 7519
    _token("npm-token", "npm_", r"npm_[A-Za-z0-9]{36}"),
    _shape("npm-token", ":_auth", r":_auth(?:Token)?[ ]?=[ ]?(?P<secret>[A-Za-z0-9+/=_-]{16,255})"),
    _token("pypi-token", "pypi-AgE", r"pypi-AgE[A-Za-z0-9_-]{50,1000}"),
    _token("api-key", "sk-", r"sk-(?=[A-Za-z_-]{0,60}\d)(?:[a-z]{2,10}[0-9]{0,2}-){0,2}[A-Za-z0-9_-]{20,255}"),
    _token("api-key", "SG.", r"SG\.[A-Za-z0-9_-]{16,64}\.[A-Za-z0-9_-]{16,128}"),
    _token(
        "api-key",
        "hf_ dop_v1_ shpat_ shpss_ shpca_ shppa_ dckr_pat_",
        r"hf_\w{30,255}|dop_v1_\w{64}|shp(?:at|ss|ca|pa)_\w{32}|dckr_pat_[\w-]{20,60}",
    ),
    _token("api-key", ":AA", r"\d{8,10}:AA[A-Za-z0-9_-]{33}"),  # a Telegram bot
    _token(
        "password-hash",
        "$1$ $2 $5$ $6$ $y$ $apr1$ $argon2",
        r"\$(?:1|2[abxy]|5|6|y|apr1|argon2i?d?)\$[A-Za-z0-9./+$=,]{20,255}",
    ),  # crypt(5), htpasswd
    _in_word("password-hash", "{S", r"\{S?SHA(?:256|512)?\}[A-Za-z0-9+/]{20,120}={0,2}"),
    _in_word(
        "password-hash",
        ":0: :/home :/bin",
        r"^[ \t>|]{0,9}[\w.-]{1,32}:(?P<secret>[A-Za-z0-9./]{13}):\d{1,6}:\d{0,6}:",
        re.MULTILINE,
    ),
    _in_word(
        "database-url",
        "://",
        rf"://(?:{_DATABASES})[^\s/:@<>\"'\[\]]{{0,100}}:(?P<secret>[^\s/<>\"'\[\]]{{1,200}})(?=@[A-Za-z0-9\[])",
    ),
    _in_word("url-password", "://", r"://[^\s/:@<>\"'\[\]]{1,100}:(?P<secret>[^\s/<>\"'\[\]]{1,200})(?=@[A-Za-z0-9\[])"),
    _shape(
        "basic-auth",
        "Basic uthorization UTHORIZATION",
        r"(?:\bAuthorization[\"']?[ \t]{0,4}[:=][ \t]{0,4}[\"']?Basic[ \t]{1,4}"
        r"|\bBasic[ \t]{1,4}(?=[A-Za-z+/]{0,300}[0-9=]))(?P<secret>[A-Za-z0-9+/]{8,4000}={0,2})(?![\w-])",
        re.IGNORECASE,
    ),
    _shape(
        "bearer-token",
        "Bearer bearer BEARER uthorization UTHORIZATION",
        r"(?:\bBearer[ \t]{1,4}(?=\S{20})|\bAuthorization[\"']?[ \t]{0,4}[:=][ \t]{0,4}[\"']?(?:Bearer|Token)[ \t]{1,4})"
        r"(?P<secret>[A-Za-z0-9+/=._~-]{8,4000})",
        re.IGNORECASE,
    ),
    _shape(
        "bearer-token",
        "uthorization UTHORIZATION",
        r"\bAuthorization[\"']?[ \t]{0,4}[:=][ \t]{0,4}[\"']?(?P<secret>(?=\S{0,200}\d)[A-Za-z0-9+/=._~-]{8,4000})",
        re.IGNORECASE,
    ),
    _shape(
        "netrc",
        "login",
        r"\blogin[\s>|]{1,9}\S{1,100}[\s>|]{1,9}(?:account[\s>|]{1,9}\S{1,100}[\s>|]{1,9})?"
        r"password[\s>|]{1,9}(?P<secret>(?!\[masked:)[^\s>|]{1,200})",
    ),
    _shape(
        "command-password",
        "curl wget sshpass --user",
        r"(?:\bcurl\b[^\n]{0,200}?[ ](?:-u|--user)[ =]?[\"']?[^\s:\"'/]{1,64}:"
        r"|\bwget\b[^\n]{0,200}?[ ]--(?:http-|ftp-)?password[ =]|\bsshpass[ ]-p[ ]?[\"']?)"
        r"(?P<secret>[^\s\"'<>$\[\]]{4,200})",
    ),
    _shape(
        "command-password",
        "mysql",
        r"\bmysql(?:dump|admin)?\b[^\n]{0,100}?[ ]-p(?P<secret>(?![a-z]{1,12}\b)[^\s\"'<>$\[\]-][^\s\"'<>$\[\]]{3,200})",
    ),
)
"""Asked one after the other, those of one word first: what comes first has taken its part out of the text."""

_IN_A_WORD = tuple(shape for shape in SHAPES if shape.one_word)
_IN_TEXT = tuple(shape for shape in SHAPES if not shape.one_word)


def replace_shapes(text: str, mark: Mark) -> str:
    """The text with every secret of :data:`SHAPES` replaced by what ``mark`` gives for it."""
    long_words = " ".join([word for word in text.split() if len(word) >= LONG_WORD])
    for shapes, place in ((_IN_A_WORD, long_words), (_IN_TEXT, text)):
        for shape in shapes if place else ():
            for hint in shape.hints:
                if hint in place:
                    text = _replace(text, shape, mark)
                    break
    return text


def _replace(text: str, shape: Shape, mark: Mark) -> str:
    return shape.expression.sub(lambda found: _marked(found, shape.kind, mark), text)
