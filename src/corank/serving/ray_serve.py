"""The same app as a deployment of Ray Serve, for more than one machine: Ray schedules, they share a store."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from corank.errors import CorankError
from corank.extras import import_extra
from corank.serving.options import ServeOptions

if TYPE_CHECKING:
    from corank.rollout.router import Router


def make_deployment(
    build: Callable[[], Router],
    options: ServeOptions | None = None,
    *,
    shape: tuple[int, ...] | None = None,
    **deployment: Any,
) -> Any:
    """Return a Ray Serve application; run it with `ray.serve.run`.

    Each replica builds a router of its own on the same roll-out, so the store must be one that all machines
    reach: PostgreSQL. The deterministic split needs no session affinity.

    Args:
        build: makes a router; it is pickled by Ray and runs in each replica.
        options: limits of each replica; address and port are Ray's.
        shape: of an input, batch first; None takes any.
        deployment: passed on to `ray.serve.deployment`, such as num_replicas=4.
    Raises: ExtraError, without Ray; CorankError, for what is no function.
    """
    if not callable(build):
        raise CorankError(f"ray: build is a {type(build).__name__}. Give a function that makes a Router.")
    serve = import_extra("ray.serve", "ray")
    used = options or ServeOptions()

    def app() -> Any:
        from corank.serving.app import make_app

        return make_app(build(), used, shape=shape)

    return serve.deployment(**{"name": "corank", **deployment})(serve.ingress(app)()).bind()
