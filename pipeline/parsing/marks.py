"""What a header says about how a mail was sent: to a list, in bulk, or by a program."""

from __future__ import annotations

import re
from collections.abc import Mapping

from pipeline.parsing.headers import list_name

_MAILTO = re.compile(r"mailto:([^>?\s]{1,320})", re.I)
_LIST_SENDER = re.compile(
    r"(?:\b|[<\"])owner-[\w.+-]{1,64}@|[-+](?:owner|bounces?|request|admin|errors)(?:[+=][^@\s]{0,100})?@", re.I
)


def list_of(fields: Mapping[str, str]) -> str | None:
    """The list a mail came through, in lower case: its List-Id, else the address that its server names for posting."""
    if "list-id" in fields:
        return list_name(fields["list-id"])
    post = _MAILTO.search(fields.get("list-post", ""))
    if post:
        return post[1].lower()
    for name in ("x-mailing-list", "x-beenthere", "x-list"):
        if name in fields:
            return list_name(fields[name].partition(" archive")[0])
    return None


def is_bulk(fields: Mapping[str, str]) -> bool:
    """Whether a mail is mass mail that nobody can answer to all: a newsletter, an advertisement, a notice.

    Posts to discussion lists are not, though old list servers mark them ``Precedence: bulk``: a list can be told by an
    address for posting, a List-Id without a way to unsubscribe, or a list server as envelope sender. ``Precedence: junk``
    always counts; ``bulk``, or List-Unsubscribe, where nothing speaks for a discussion.
    """
    if "precedence" not in fields and "list-unsubscribe" not in fields:
        return False
    precedence = fields.get("precedence", "").strip().lower()
    if precedence == "junk":
        return True
    if precedence != "bulk" and "list-unsubscribe" not in fields:
        return False
    if precedence == "list" or not fields.keys().isdisjoint(("x-mailing-list", "mailing-list", "x-beenthere", "x-list")):
        return False
    if fields.get("list-post", "no").lower().strip() != "no":
        return False
    if "list-id" in fields:
        return "list-unsubscribe" in fields
    return not (_LIST_SENDER.search(fields.get("sender", "")) or _LIST_SENDER.search(fields.get("return-path", "")))


def is_auto(fields: Mapping[str, str], kind: str, author: str) -> bool:
    """Whether a program wrote the mail: Auto-Submitted (RFC 3834), autoresponder marks, delivery reports, bounces."""
    submitted = fields.get("auto-submitted", "")
    if submitted and submitted.partition(";")[0].strip().lower() != "no":
        return True
    if "x-autoreply" in fields or "x-autorespond" in fields or fields.get("precedence", "").strip().lower() == "auto_reply":
        return True
    return (
        kind == "multipart/report"
        or fields.get("return-path") == "<>"
        or author.startswith(("mailer-daemon@", "postmaster@"))
    )
