"""The same app as a deployment of Ray Serve, for more than one machine: Ray schedules, they share a store."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from corank.errors import CorankError
from corank.extras import import_extra
from corank.serving.options import ServeOptions

if TYPE_CHECKING:
    from corank.rollout.router import Listener, Router


def make_deployment(
    build: Callable[[Listener], Router],
    options: ServeOptions | None = None,
    *,
    shape: tuple[int, ...] | None = None,
    without_token: bool = False,
    **deployment: Any,
) -> Any:
    """Return a Ray Serve application; run it with `ray.serve.run`.

    Each replica builds a router of its own on the same roll-out, so the store must be one that all machines
    reach: PostgreSQL. The deterministic split needs no session affinity.

    Args:
        build: takes the listener of the replica's metrics and makes a Router with it; it is pickled by Ray
            and runs in each replica.
        options: limits of each replica, and the token; address and port are Ray's.
        shape: of an input, batch first; None takes any.
        without_token: let everybody in who reaches Ray's address, if `options` have no token.
        deployment: passed on to `ray.serve.deployment`, such as num_replicas=4.
    Raises: ExtraError, without Ray; CorankError, for what is no function of one argument, or without a token.
    """
    if not callable(build):
        raise CorankError(f"ray: build is a {type(build).__name__}. Give a function that makes a Router.")
    try:
        inspect.signature(build).bind(None)
    except TypeError as error:
        raise CorankError(
            f"ray: build takes one argument, the router's listener ({error}). "
            "Write def build(listener): return Router(..., listener=listener)."
        ) from None
    used = options or ServeOptions()
    if used.token is None and not without_token:
        raise CorankError(
            "ray: whoever reaches Ray's address could ask, so a token is needed. "
            "Give options=ServeOptions(token=...), or without_token=True behind a door of your own."
        )
    serve = import_extra("ray.serve", "ray")

    def app() -> Any:
        from corank.serving.app import make_app
        from corank.serving.metrics import Metrics

        metrics = Metrics()
        return make_app(build(metrics.hear), used, metrics, shape)

    return serve.deployment(**{"name": "corank", **deployment})(serve.ingress(app)()).bind()
