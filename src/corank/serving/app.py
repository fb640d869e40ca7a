"""The HTTP side of a roll-out: /predict, /outcome, /status, /metrics, and a page that shows how it goes."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from importlib.resources import files
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np

from corank.errors import CorankError, ReceiptError, StoreError
from corank.extras import import_extra
from corank.rollout.router import Answer, Router
from corank.serving.bodies import NPY, BodyError, read_object, read_request, write_npy
from corank.serving.limits import Buckets, is_allowed
from corank.serving.metrics import Metrics
from corank.serving.options import ServeOptions
from corank.serving.slots import Slots

if TYPE_CHECKING:
    import anyio
    import fastapi
    from fastapi import Request, Response
    from fastapi.responses import HTMLResponse, JSONResponse
else:
    anyio = import_extra("anyio", "serve")
    fastapi = import_extra("fastapi", "serve")
    Request, Response = fastapi.Request, fastapi.Response
    responses = import_extra("fastapi.responses", "serve")
    HTMLResponse, JSONResponse = responses.HTMLResponse, responses.JSONResponse

logger = logging.getLogger(__name__)
_OUTCOME = ("receipt", "label", "labels", "score")
_MOST_OUTCOME = 2**20  # bytes
_UNSURE = (
    "outcome: the store did not answer in time, so it may have been recorded or not. "
    "Try again: that is safe, it counts once."
)


class _Refused(Exception):
    def __init__(self, code: int, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.code, self.headers = code, headers


def make_app(
    router: Router,
    options: ServeOptions,
    metrics: Metrics | None = None,
    shape: tuple[int, ...] | None = None,
) -> fastapi.FastAPI:
    """Put a router behind HTTP.

    Args:
        router: closed when the server stops.
        options: limits; host and port are for whoever runs it.
        metrics: whose `hear` is the router's listener.
        shape: that an input must have but for its first size; None takes any.
    Returns: an ASGI application.
    """
    told = metrics or Metrics()
    buckets = Buckets(options.rate)
    threads = anyio.CapacityLimiter(options.threads)
    slots = Slots(options.concurrent)

    @asynccontextmanager
    async def lifespan(_: fastapi.FastAPI) -> AsyncIterator[None]:
        yield
        await anyio.to_thread.run_sync(router.close)

    app = fastapi.FastAPI(docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)

    @app.exception_handler(_Refused)
    async def refused(request: Request, error: _Refused) -> Response:
        return JSONResponse({"error": str(error)}, error.code, error.headers)

    @app.middleware("http")
    async def guarded(request: Request, call_next: Any) -> Response:
        begun, path = time.perf_counter(), request.scope["path"]
        response = _at_the_door(request, options, buckets)
        if response is None:
            response = await call_next(request)
        told.time(path if path in _PATHS else "other", response.status_code, time.perf_counter() - begun)
        return response

    @app.post("/predict")
    async def predict(request: Request) -> Response:
        body = await _read(request, options.max_bytes, options.seconds)
        try:
            kind = request.headers.get("content-type", "")
            asked = read_request(body, kind, request.headers, router.dtype or "float32")
            _require_shape(asked.inputs, shape)
        except BodyError as error:
            raise _Refused(error.code, str(error)) from None
        call = partial(router, asked.inputs, key=asked.key, request=asked.request)
        answer = await _answer(call, slots, threads, options.seconds)
        return _reply(answer, request.headers.get("accept", ""))

    @app.post("/outcome")
    async def outcome(request: Request) -> Response:
        body = await _read(request, min(options.max_bytes, _MOST_OUTCOME), options.seconds)
        try:
            values = read_object(body, _OUTCOME)
            future = router.submit(str(values.pop("receipt", "")), **values)
            # shielded: who stops waiting does not take the outcome back
            new = await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(future)), options.seconds)
        except (BodyError, ReceiptError, TypeError) as error:
            raise _Refused(422, str(error)) from None
        except (StoreError, TimeoutError):
            logger.warning("an outcome was refused: the store does not answer")
            raise _Refused(503, _UNSURE) from None
        return JSONResponse({"new": new})

    @app.get("/status")
    async def status() -> Response:
        return JSONResponse(await _status(router))

    @app.get("/metrics")
    async def metrics_() -> Response:
        try:
            now: dict[str, Any] | None = await anyio.to_thread.run_sync(router.status)
        except StoreError:
            now = None  # the age of the store says it
        text = told.write(now, router.store_age)
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/healthz")
    async def healthz() -> Response:
        return JSONResponse({"status": router.view.status})

    @app.get("/")
    async def page() -> Response:
        return HTMLResponse(_PAGE, headers=_PAGE_HEADERS)

    return app


def _at_the_door(request: Request, options: ServeOptions, buckets: Buckets) -> Response | None:
    """Refuse who has no token or asks too often; the page and the health check need no token."""
    address = request.client.host if request.client else "nowhere"
    wait = buckets.wait(address, time.monotonic())
    if wait > 0:
        headers = {"Retry-After": str(max(1, round(wait)))}
        return JSONResponse({"error": f"rate: at most {options.rate:g} requests a second."}, 429, headers)
    # the path that is routed: that of request.url holds what the client put into its Host header
    open_to_all = request.scope["path"] in ("/", "/healthz")
    if not open_to_all and not is_allowed(request.headers.get("authorization"), options.token):
        headers = {"WWW-Authenticate": "Bearer"}
        return JSONResponse({"error": "authorization: a bearer token is needed."}, 401, headers)
    return None


async def _read(request: Request, most: int, seconds: float) -> bytes:
    promised = request.headers.get("content-length", "0")
    if not promised.isdigit() or int(promised) > most:
        raise _Refused(413, f"body: at most {most} bytes are allowed, got {promised[:20]}.")
    parts, size = [], 0
    try:
        async with asyncio.timeout(seconds):
            async for part in request.stream():
                size += len(part)
                if size > most:
                    raise _Refused(413, f"body: at most {most} bytes are allowed.")
                parts.append(part)
    except TimeoutError:
        raise _Refused(408, f"body: it did not come within {seconds:g} s.") from None
    return b"".join(parts)


async def _answer(
    call: Callable[[], Answer], slots: Slots, threads: anyio.CapacityLimiter, seconds: float
) -> Answer:
    slot = slots.take(call)
    if slot is None:
        raise _Refused(503, f"busy: {slots.most} requests are under way. Try again.", {"Retry-After": "1"})
    try:
        with anyio.fail_after(seconds):
            answer = await anyio.to_thread.run_sync(slot, abandon_on_cancel=True, limiter=threads)
        if answer is None:
            raise TimeoutError
        return answer
    except TimeoutError:
        raise _Refused(504, f"predict: no answer within {seconds:g} s.") from None
    except CorankError as error:
        raise _Refused(422, str(error)) from None
    except Exception:
        logger.exception("the model failed")
        raise _Refused(500, "predict: the model failed on this input.") from None
    finally:
        slot.leave()


async def _status(router: Router) -> dict[str, Any]:
    try:
        return await anyio.to_thread.run_sync(router.status)
    except StoreError as error:
        raise _Refused(503, str(error)) from None


def _reply(answer: Answer, accept: str) -> Response:
    output = np.asarray(answer.output)
    if NPY in accept:
        headers = {"x-corank-receipt": answer.receipt, "x-corank-request": quote(answer.request)}
        return Response(write_npy(output), media_type=NPY, headers=headers)
    if output.dtype.kind == "f" and not np.isfinite(output).all():
        raise _Refused(500, "predict: the answer is not finite.")
    return JSONResponse({"outputs": output.tolist(), "receipt": answer.receipt, "request": answer.request})


def _require_shape(inputs: Any, shape: tuple[int, ...] | None) -> None:
    if shape is not None and (inputs.ndim != len(shape) or inputs.shape[1:] != shape[1:]):
        wanted = ", ".join(["any", *map(str, shape[1:])])
        raise BodyError(f"inputs: allowed is the shape ({wanted}), got {inputs.shape}.")


_PATHS = ("/predict", "/outcome", "/status", "/metrics", "/healthz", "/")
_PAGE = files("corank.serving").joinpath("status.html").read_text(encoding="utf-8")
_SCRIPT = _PAGE.partition("<script>")[2].partition("</script>")[0]
_HASH = base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode()
_PAGE_HEADERS = {
    "Content-Security-Policy": (
        f"default-src 'none'; script-src 'sha256-{_HASH}'; style-src 'unsafe-inline'; connect-src 'self'; "
        "form-action 'none'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
