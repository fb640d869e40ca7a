"""How a roll-out is served: where, who may ask, how much and how fast."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite

from corank.errors import CorankError

_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_LEAST_TOKEN = 16


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """The limits of a server, checked before it starts.

    Args:
        host: the address to listen on.
        port: the port; 0 takes a free one.
        token: what a client must send as `Authorization: Bearer …`; None only on a loopback address.
        max_bytes: of one request.
        seconds: for one request, its body and its answer each.
        rate: requests a second from one address, twice as many at once; None is no limit.
        concurrent: requests at once; more are refused.
        threads: that run the models.

    >>> ServeOptions().port
    8000
    """

    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = None
    max_bytes: int = 8 * 2**20
    seconds: float = 10.0
    rate: float | None = 200.0
    concurrent: int = 64
    threads: int = 2

    def __post_init__(self) -> None:
        for name, least in (("port", 0), ("max_bytes", 1), ("concurrent", 1), ("threads", 1)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise CorankError(f"serve: {name} is a whole number from {least}, got {value!r}.")
        if self.port > 65535:
            raise CorankError(f"serve: port is at most 65535, got {self.port}.")
        for name in ("seconds", "rate"):
            value = getattr(self, name)
            if value is not None and not (isfinite(value) and value > 0):
                raise CorankError(f"serve: {name} is a number above 0, got {value!r}.")
        if self.token is not None and len(self.token) < _LEAST_TOKEN:
            raise CorankError(
                f"serve: a token has at least {_LEAST_TOKEN} characters, got {len(self.token)}. "
                "Make one: python -c 'import secrets; print(secrets.token_urlsafe())'."
            )
        if self.token is None and self.host not in _LOOPBACK:
            raise CorankError(
                f"serve: {self.host} can be reached from elsewhere, so a token is needed. "
                "Give --token-file, or set CORANK_TOKEN."
            )
