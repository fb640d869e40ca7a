"""`corank serve`: a staged roll-out behind HTTP."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer


def serve(
    champion: Annotated[Path, typer.Option(help="The bundle that is served today.")],
    challenger: Annotated[Path, typer.Option(help="The bundle that may replace it.")],
    store: Annotated[str, typer.Option(help="A SQLite file, or a database's URL.")] = "rollout.db",
    name: Annotated[str, typer.Option(help="Of the roll-out; the same name goes on with it.")] = "rollout",
    policy: Annotated[Path | None, typer.Option(help="TOML or JSON; default: the policy's defaults.")] = None,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes a free one.")] = 8000,
    token_file: Annotated[Path | None, typer.Option(help="Holds the token; or set CORANK_TOKEN.")] = None,
    max_bytes: Annotated[int, typer.Option(help="Of one request.")] = 8 * 2**20,
    seconds: Annotated[float, typer.Option(help="For a body, and for an answer.")] = 10.0,
    rate: Annotated[float, typer.Option(help="Requests a second from one address; 0 is no limit.")] = 200.0,
    concurrent: Annotated[int, typer.Option(help="Requests at once.")] = 64,
    threads: Annotated[int, typer.Option(help="That run the models.")] = 2,
) -> None:
    """Serve the champion, try the challenger in stages, and roll back by itself.

    POST /predict and /outcome; GET /status, /metrics, /healthz, and / for the page. Stop it with SIGTERM.

    Example: corank serve --champion dense --challenger small --store rollout.db --port 8000
    """
    from corank.cli.models import make_factory
    from corank.rollout import Policy
    from corank.serving.bundles import read_bundle
    from corank.serving.metrics import Metrics
    from corank.serving.options import ServeOptions
    from corank.serving.running import listen, make_router
    from corank.serving.running import serve as run

    options = ServeOptions(
        host, port, _token(token_file), max_bytes, seconds, rate or None, concurrent, threads
    )
    terms = Policy.read(policy) if policy is not None else Policy()
    bundles = read_bundle(champion), read_bundle(challenger)
    with listen(options) as listening:
        metrics = Metrics()
        router = make_router(
            *bundles,
            terms,
            store,
            name=name,
            find_factory=make_factory,
            patience=seconds,
            listener=metrics.hear,
        )
        run(router, options, listening, metrics=metrics, shape=bundles[0].shape, ready=typer.echo)


def _token(path: Path | None) -> str | None:
    from corank.errors import FileError

    if path is None:
        return os.environ.get("CORANK_TOKEN") or None
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise FileError(f"{path}: cannot be read ({error}). Give a file with a token in one line.") from error
