"""Inputs as the dtype that the models take: cast where the numbers stay what they are, refused otherwise."""

from __future__ import annotations

from typing import Any

from corank.errors import CorankError

DTYPES = ("float32", "float64", "float16", "int64", "int32", "int16", "int8", "uint8", "bool")


def cast(inputs: Any, dtype: str | None) -> Any:
    """Cast an array: any number to a float, whole numbers to whole numbers that hold them.

    Args:
        inputs: what is no array of numpy's is left as it is.
        dtype: one of DTYPES, in this machine's order of bytes; None leaves everything.
    Raises: CorankError, for what cannot be cast.

    >>> import numpy as np
    >>> cast(np.ones(2), "float32").dtype
    dtype('float32')
    >>> cast(np.array([1.5]), "int64")
    Traceback (most recent call last):
    corank.errors.CorankError: inputs: float64 cannot become int64, which the models take. Send int64.
    """
    import numpy as np

    if dtype is None or not isinstance(inputs, np.ndarray) or inputs.dtype == dtype:
        return inputs
    to = np.dtype(dtype)
    whole = inputs.dtype.kind in "iub" and to.kind in "iub"
    if not whole and not (to.kind == "f" and inputs.dtype.kind in "fiub"):
        raise CorankError(
            f"inputs: {inputs.dtype} cannot become {dtype}, which the models take. Send {dtype}."
        )
    if whole and inputs.size:
        least, most = (0, 1) if to.kind == "b" else (np.iinfo(to).min, np.iinfo(to).max)
        if int(inputs.min()) < least or int(inputs.max()) > most:
            raise CorankError(f"inputs: {dtype} holds {least} to {most}, got numbers beyond.")
    with np.errstate(all="ignore"):
        made = inputs.astype(to)
    if to.kind == "f" and not np.isfinite(made).all():
        raise CorankError(f"inputs: they are NaN or infinite as {dtype}, which the models take.")
    return made
