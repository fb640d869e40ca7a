"""Who answers whom: a deterministic split of hashed keys, the same in every process and after every start."""

from __future__ import annotations

import hashlib


def place(salt: str, key: str) -> float:
    """Return where a key falls in [0, 1): evenly spread, the same for ever for one salt.

    >>> place("salt", "user-1") == place("salt", "user-1")
    True
    >>> place("salt", "user-1") == place("pepper", "user-1")
    False
    """
    digest = hashlib.sha256(f"{salt}\0{key}".encode("utf-8", "surrogatepass")).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / 2.0**53


def falls_under(salt: str, key: str, share: float) -> bool:
    """Say whether a key is among the share; who is stays among every larger one.

    >>> falls_under("salt", "user-1", 0.0), falls_under("salt", "user-1", 1.0)
    (False, True)
    """
    return place(salt, key) < share
