"""Signed documents, and the key that they are signed with: Ed25519 (RFC 8032), one per home, drawn when first needed.

A valid signature says that whoever wrote the receipt could read this home's ``signing.key``. It tells a home's receipts
from those of another, also where no store is at hand; it does not guard against somebody who may read the key.
"""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pipeline.errors import RegistryError
from pipeline.home import Home, write_atomic
from pipeline.strict import Strict

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

KEY_BYTES = 32


@dataclass(frozen=True, slots=True)
class SigningKey:
    """The private key, as its 32 bytes of seed."""

    seed: bytes

    @classmethod
    def of(cls, home: Home) -> SigningKey:
        """The home's key, drawn and written (0600) when there is none yet; raises as :meth:`read` does."""
        if not home.signing_key.exists():
            write_atomic(home.signing_key, secrets.token_bytes(KEY_BYTES).hex().encode() + b"\n")
        return cls.read(home.signing_key)

    @classmethod
    def read(cls, path: Path) -> SigningKey:
        """Reads 64 hex digits; raises ``RegistryError`` when the file is missing or holds something else."""
        try:
            seed = bytes.fromhex(path.read_text(encoding="ascii"))
        except (OSError, ValueError) as error:
            raise RegistryError(f"{path} cannot be read as a key", hint="restore it from a backup") from error
        if len(seed) != KEY_BYTES:
            raise RegistryError(
                f"{path} holds {2 * len(seed)} hexadecimal digits, not {2 * KEY_BYTES}", hint="restore it from a backup"
            )
        return cls(seed)

    @property
    def public(self) -> str:
        """The public key, 64 hex digits."""
        return self._private().public_key().public_bytes_raw().hex()

    def sign(self, data: bytes) -> str:
        """The signature, 128 hex digits; the same data gives the same one."""
        return self._private().sign(data).hex()

    def _private(self) -> Ed25519PrivateKey:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        return Ed25519PrivateKey.from_private_bytes(self.seed)


class Signed(Strict):
    """A document with a signature of all its other fields, by the holder of the public key ``signed_by``."""

    signed_by: str
    signature: str = ""

    def signed(self, key: SigningKey) -> Self:
        """The same document, signed."""
        named = self.model_copy(update={"signed_by": key.public})
        return named.model_copy(update={"signature": key.sign(named.told())})

    @property
    def is_signed(self) -> bool:
        """Whether the signature is that of the key named."""
        return is_signed(self.told(), self.signed_by, self.signature)

    def told(self) -> bytes:
        """What is signed: everything but the signature."""
        return canonical(self.model_dump(mode="json", exclude={"signature"}))


def canonical(fields: dict[str, Any]) -> bytes:
    """JSON of which the same fields give the same bytes."""
    return (json.dumps(fields, sort_keys=True, indent=1, ensure_ascii=False) + "\n").encode()


def is_signed(data: bytes, public: str, signature: str) -> bool:
    """Whether ``signature`` is of ``data`` by the holder of ``public`` (both in hex); False for what is none at all."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        if bytes.fromhex(signature).hex() != signature:
            return False  # capitals and blanks spell the same number, and would be another byte in a file
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(public)).verify(bytes.fromhex(signature), data)
    except (InvalidSignature, ValueError):
        return False
    return True
