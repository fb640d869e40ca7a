"""Find what a command line names as `package.module:factory`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import Any

from corank.errors import CorankError


def find_factory(text: str) -> Callable[[], Any]:
    """Import a callable by the name of its module and its own; modules in the working folder count.

    Raises: CorankError, when there is none.

    >>> find_factory("collections:OrderedDict")
    <class 'collections.OrderedDict'>
    """
    module, _, name = text.partition(":")
    if not module or not name:
        raise CorankError(f"model: allowed is package.module:factory, got {text!r}.")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        found = importlib.import_module(module)
    except ImportError as error:
        raise CorankError(f"model: {module} cannot be imported ({error}). Name a module that can.") from error
    factory = getattr(found, name, None)
    if not callable(factory):
        raise CorankError(f"model: {module} has no callable {name!r}. Name one that builds the network.")
    made: Callable[[], Any] = factory
    return made
