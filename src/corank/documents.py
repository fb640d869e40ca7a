"""Values that are kept as JSON with a schema number: plans, latency tables, headrooms, benchmarks."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from corank.errors import FileError

T = TypeVar("T")


def write_document(schema: int, values: Mapping[str, Any]) -> str:
    """Write values as JSON with their schema number.

    >>> write_document(1, {"rank": 3})
    '{\\n "schema": 1,\\n "rank": 3\\n}'
    """
    return json.dumps({"schema": schema, **values}, indent=1)


def read_document(text: str, name: str, schema: int, make: Callable[[dict[str, Any]], T]) -> T:
    """Read what `write_document` wrote.

    Args:
        name: of what it is, for the error.
        schema: that is understood.
        make: builds the value from the values; whatever of them does not fit may raise as it likes.
    Raises: FileError, for another schema or a text that is none.

    >>> read_document('{"schema": 1, "rank": 3}', "thing", 1, lambda values: values["rank"])
    3
    """
    try:
        values = json.loads(text)
        found = values.pop("schema")
        if found != schema:
            raise FileError(f"{name}: this corank reads schema {schema}, got {found!r}. Upgrade corank.")
        return make(values)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise FileError(
            f"{name}: the text is not one ({type(error).__name__}: {error}). Give what its to_json() wrote."
        ) from error
