"""Evidence that may be looked at at any time: a mixture of bets against a bound on a mean.

Legend: R runs side by side (none in a server), B bets, T values.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.floating]

BETS = 10
BLOCK = 50  # values between two stakes
_BOLD = 0.9  # of the largest bet that cannot lose everything
_AT_ONCE = 25  # factors that are multiplied before their logarithm is taken: far from overflow


def bets(low: float, bound: float) -> Array:
    """Return the sizes of the bets, each half of the one before.

    Args:
        low: the least value that can come.
        bound: on the mean, above `low`.
    Returns: (B,), each such that 1 + λ(x − bound) stays above 0.

    >>> bets(0.0, 0.5)[:3].tolist()
    [1.8, 0.9, 0.45]
    """
    import numpy as np

    return _BOLD / (bound - low) * 0.5 ** np.arange(BETS)


def begin(runs: tuple[int, ...] = ()) -> Array:
    """Return the logarithm of what is staked on each bet before the first value: nothing.

    >>> begin().shape
    (10,)
    """
    import numpy as np

    return np.full((*runs, BETS), -np.inf)


def stake(block: int) -> float:
    """Return the share of the capital that is staked when a block begins; all of them sum to one.

    >>> [round(stake(block), 3) for block in range(3)]
    [0.5, 0.167, 0.083]
    """
    return 1.0 / ((block + 1) * (block + 2))


def grow(log_staked: Array, count: int, values: Array, low: float, bound: float) -> Array:
    """Bet on values that come one after another.

    log M_b ← log(M_b + stake) + Σ log(1 + λ_b (x − bound)), a stake each `BLOCK` values.

    Args:
        log_staked: (R…, B), what `begin` or the last call gave.
        count: how many values came before these.
        values: (R…, T), at least `low`.
        low: the least value that can come.
        bound: the mean that is bet against: the wealth grows where the true mean is above it.
    Returns: (R…, B).
    Source: Waudby-Smith and Ramdas, Estimating means of bounded random variables by betting (2024),
        section 4; beginnings as in Shin, Ramdas and Rinaldo, E-detectors (2023), with weights that sum to
        one.

    >>> import numpy as np
    >>> high = grow(begin(), 0, np.ones(20), 0.0, 0.5)
    >>> bool(log_evidence(high, 20) > np.log(100))
    True
    """
    import numpy as np

    sizes = bets(low, bound)
    start, total = 0, values.shape[-1]
    while start < total:
        into = (count + start) % BLOCK
        if into == 0:
            log_staked = np.logaddexp(log_staked, np.log(stake((count + start) // BLOCK)))
        stop = min(total, start + BLOCK - into, start + _AT_ONCE)
        factors = 1 + (values[..., start:stop, None] - bound) * sizes
        log_staked = log_staked + np.log(factors.prod(-2))
        start = stop
    return log_staked


def log_evidence(log_staked: Array, count: int) -> Array:
    """Return the logarithm of the whole capital: the mean over the bets, and what is not yet staked.

    Under the hypothesis it passes log(1/α) at any time with probability at most α (Ville's inequality).

    >>> float(log_evidence(begin(), 0))
    0.0
    """
    import numpy as np

    blocks = -(-count // BLOCK)
    most = np.maximum(log_staked.max(-1), -700.0)
    staked = most + np.log(np.exp(log_staked - most[..., None]).mean(-1) + 1e-300)
    total: Array = np.logaddexp(staked, -np.log(blocks + 1.0))
    return total
