"""From two bundles and a policy to a server that runs until it is told to stop."""

from __future__ import annotations

import logging
import signal
import socket
from collections.abc import Callable
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from corank.errors import CorankError
from corank.extras import import_extra
from corank.rollout import Bundles, Policy, Router
from corank.serving.bundles import Bundle, load_bundle
from corank.serving.options import ServeOptions

if TYPE_CHECKING:
    from torch import nn

logger = logging.getLogger(__name__)
Factory = Callable[[str], Callable[[], "nn.Module"]]


def make_router(
    champion: Bundle,
    challenger: Bundle,
    policy: Policy,
    store: str | Path,
    *,
    name: str,
    find_factory: Factory,
    patience: float = 10.0,
    listener: Callable[..., None] | None = None,
) -> Router:
    """Load two bundles and put a router before them.

    Args:
        champion: what is served today.
        challenger: what may replace it.
        policy: when to go on, stop and go back.
        store: a SQLite file, or a URL of SQLAlchemy.
        name: of the roll-out.
        find_factory: gives the factory that a bundle names.
        patience: seconds after which a call that has not come back counts as a failure.
        listener: called after each model's run.
    Raises: CorankError, for bundles whose inputs differ; FileError, for files that do not fit; StoreError,
        when the store cannot be used or began with other bundles.
    """
    if champion.shape != challenger.shape:
        raise CorankError(
            f"serve: {champion.folder} takes inputs of shape {champion.shape} and {challenger.folder} of "
            f"{challenger.shape}. They must take the same."
        )
    kinds = {np.dtype(one.dtype).kind for one in (champion, challenger) if one.dtype is not None}
    if len(kinds) > 1:  # floats of two sizes are cast by each
        raise CorankError(
            f"serve: {champion.folder} takes inputs of {champion.dtype} and {challenger.folder} of "
            f"{challenger.dtype}. They must take the same."
        )
    a, b = (
        load_bundle(one, find_factory(one.factory) if one.factory else None) for one in (champion, challenger)
    )
    digests = Bundles(champion.digest, challenger.digest)
    return Router(
        a,
        b,
        policy,
        store,
        name=name,
        bundles=digests,
        patience=patience,
        listener=listener,
        dtype=champion.dtype or challenger.dtype,
    )


def serve(
    router: Router,
    options: ServeOptions,
    listening: socket.socket,
    *,
    metrics: object = None,
    shape: tuple[int, ...] | None = None,
    ready: Callable[[str], None] | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT; requests under way are answered, and what waits is written.

    Args:
        router: closed at the end.
        options: the limits.
        listening: from `listen`.
        metrics: whose `hear` is the router's listener.
        shape: of an input, batch first; None takes any.
        ready: called with the address before the first request is taken.
    """
    uvicorn = import_extra("uvicorn", "serve")
    from corank.serving.app import make_app
    from corank.serving.metrics import Metrics

    app = make_app(router, options, metrics if isinstance(metrics, Metrics) else None, shape)
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=ceil(options.seconds) + 1,
        limit_concurrency=4 * options.concurrent + 16,  # connections; requests are counted in the app
    )
    where = f"http://{options.host}:{listening.getsockname()[1]}"
    before = signal.signal(signal.SIGTERM, lambda *_: None)  # uvicorn raises it once more when it is done
    try:
        if ready is not None:
            ready(where)
        uvicorn.Server(config).run(sockets=[listening])
    finally:
        signal.signal(signal.SIGTERM, before)
        listening.close()


def listen(options: ServeOptions) -> socket.socket:
    """Take the address, before anything is loaded.

    Raises: CorankError, when it is taken or not one of this machine.
    """
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    # asyncio sends small packets at once only where the protocol is named; otherwise a reply takes 40 ms more
    taken = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        taken.bind((options.host, options.port))
        taken.listen(128)
    except OSError as error:
        taken.close()
        raise CorankError(
            f"serve: cannot listen on {options.host}:{options.port} ({error.strerror}). Choose another port."
        ) from error
    return taken
