"""Who may come in, and how often: a token compared in constant time, and a bucket of requests an address."""

from __future__ import annotations

import hashlib
import hmac
from collections import OrderedDict

_MOST = 10_000  # addresses that are remembered


def is_allowed(header: str | None, token: str | None) -> bool:
    """Say whether an Authorization header brings the token; the time it takes tells nothing of either.

    >>> is_allowed("Bearer abc", "abc"), is_allowed("Bearer abd", "abc"), is_allowed(None, None)
    (True, False, True)
    """
    if token is None:
        return True
    scheme, _, given = (header or "").partition(" ")
    digests = [hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest() for text in (given, token)]
    return hmac.compare_digest(*digests) and scheme.lower() == "bearer"


class Buckets:
    """So many requests a second from each address, twice as many at once.

    >>> buckets = Buckets(rate=1.0)
    >>> [buckets.wait("here", now) for now in (0.0, 0.0, 0.0, 1.0)]
    [0.0, 0.0, 1.0, 0.0]
    """

    def __init__(self, rate: float | None) -> None:
        self.rate = rate
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait(self, address: str, now: float) -> float:
        """Take one request, and return 0; or take none, and return the seconds until there is one."""
        if self.rate is None:
            return 0.0
        most = max(2 * self.rate, 1.0)
        left, before = self._left.pop(address, (most, now))
        left = min(most, left + (now - before) * self.rate)
        taken = left >= 1
        self._left[address] = (left - 1 if taken else left, now)
        if len(self._left) > _MOST:
            self._left.popitem(last=False)
        return 0.0 if taken else (1 - left) / self.rate
