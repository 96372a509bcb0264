"""A web hook as a deploy target: one signed JSON document for each promotion, in the form of Standard Webhooks 1.0.

It says which adapter serves a mailbox from now on and by which digest it is known (or, as ``adapter.withdrawn``, that one
must not serve any longer and none takes its place), and holds no text of mail and no name of a person. ``webhook-id`` is
the event's: a receiver that sees it twice has seen one. ``webhook-signature`` holds ``v1a,`` with the Ed25519 signature of
the home's key, which receipts name as ``signed_by``, and with a shared secret ``v1,`` with an HMAC-SHA256, each over
``ID.TIMESTAMP.BODY``.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from datetime import UTC, datetime

from pipeline.events import AdapterPromoted
from pipeline.home import Home
from registry.deploy.calling import Caller
from registry.deploy.contract import Speed
from registry.signing import SigningKey


class Webhook:
    """Posts to one address; any answer but success is tried again later."""

    name = "webhook"
    mailbox: str | None = None
    drain_seconds = 0.0

    def __init__(self, home: Home, url: str, seconds: float, secret: Callable[[], str] | None) -> None:
        self._home = home
        self._caller = Caller(url, seconds)
        self._secret = secret

    def load(self, promotion: AdapterPromoted) -> None:
        """Tells of the promotion: a receiver has nothing that could be loaded and flipped apart."""
        body = document(promotion)
        self._caller.send("POST", "", body, self._signed(promotion.event_id, body))

    def check(self, promotion: AdapterPromoted) -> None:
        """Nothing: the receiver has answered."""

    def flip(self, promotion: AdapterPromoted) -> None:
        """Nothing: what was told cannot be taken back."""

    def confirm(self, promotion: AdapterPromoted) -> None:
        """Nothing: a receiver is not asked."""

    def unload(self, mailbox: str, adapter_id: str) -> None:
        """Nothing: the next promotion tells."""

    def withdraw(self, mailbox: str, adapter_id: str) -> None:
        """Tells that the adapter must not serve any longer."""
        told = {"type": "adapter.withdrawn", "mailbox": mailbox, "adapter_id": adapter_id}
        body = json.dumps(told, sort_keys=True).encode()
        self._caller.send("POST", "", body, self._signed(f"adapter.withdrawn/{mailbox}/{adapter_id}", body))

    def speed(self, promotion: AdapterPromoted) -> Speed | None:
        return None

    def _signed(self, identity: str, body: bytes) -> dict[str, str]:
        stamp = str(int(datetime.now(UTC).timestamp()))
        told = b".".join((identity.encode(), stamp.encode(), body))
        signatures = ["v1a," + base64.b64encode(bytes.fromhex(SigningKey.of(self._home).sign(told))).decode()]
        if self._secret is not None:
            mac = hmac.new(self._secret().encode(), told, hashlib.sha256).digest()
            signatures.append("v1," + base64.b64encode(mac).decode())
        return {"webhook-id": identity, "webhook-timestamp": stamp, "webhook-signature": " ".join(signatures)}


def document(promotion: AdapterPromoted) -> bytes:
    """What is posted."""
    told = {
        "type": "adapter.promoted",
        "mailbox": promotion.mailbox,
        "adapter_id": promotion.adapter_id,
        "sha256": promotion.sha256,
        "journal_ordinal": promotion.journal_ordinal,
    }
    return json.dumps(told, sort_keys=True).encode()
