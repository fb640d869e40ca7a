"""What a client gets with an answer and brings back with its outcome: signed, so that nothing is stored."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from dataclasses import dataclass

from corank.errors import ReceiptError
from corank.rollout.rows import CHALLENGER, CHAMPION, Labels

_SIGNATURE = 16  # bytes
_MOST_LABELS = 4096


@dataclass(frozen=True, slots=True)
class Receipt:
    """One answer: whose request it was, in which stage, what was served, whether both models answered."""

    request: str
    stage: int
    arm: str
    paired: bool
    labels: Labels | None


def write_receipt(receipt: Receipt, secret: str, name: str) -> str:
    """Write and sign a receipt.

    >>> text = write_receipt(Receipt("a", 0, "champion", False, (3,)), "secret", "rollout")
    >>> read_receipt(text, "secret", "rollout").labels
    (3,)
    """
    labels = receipt.labels
    if labels is not None and len(labels) > _MOST_LABELS:
        labels = None
    values = [
        receipt.request,
        receipt.stage,
        int(receipt.arm == CHALLENGER),
        int(receipt.paired),
        None if labels is None else list(labels),
    ]
    payload = json.dumps(values, separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(_sign(payload, secret, name) + payload).decode().rstrip("=")


def read_receipt(text: str, secret: str, name: str) -> Receipt:
    """Read a receipt, after its signature.

    Raises: ReceiptError, for one that this roll-out did not write.
    """
    try:
        raw = base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError, AttributeError):
        raw = b""
    signature, payload = raw[:_SIGNATURE], raw[_SIGNATURE:]
    if not hmac.compare_digest(signature, _sign(payload, secret, name)):
        raise ReceiptError(
            f"receipt: not one of the roll-out {name!r}. Give back what came with the answer, unchanged."
        )
    request, stage, arm, paired, labels = json.loads(payload)
    return Receipt(
        request,
        stage,
        CHALLENGER if arm else CHAMPION,
        bool(paired),
        None if labels is None else tuple(labels),
    )


def _sign(payload: bytes, secret: str, name: str) -> bytes:
    return hmac.new(secret.encode(), name.encode() + b"\0" + payload, hashlib.sha256).digest()[:_SIGNATURE]
