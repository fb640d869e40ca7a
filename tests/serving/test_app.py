"""The app over HTTP, in this process: bodies, tokens, limits, the page and the metrics."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import threading
import time
from urllib.parse import unquote

import anyio
import numpy as np
import pytest

from corank.errors import StoreError
from corank.rollout import Policy, Router
from corank.serving.app import _answer, make_app
from corank.serving.bodies import NPY, write_npy
from corank.serving.metrics import Metrics
from corank.serving.options import ServeOptions
from corank.serving.slots import Slots

testclient = pytest.importorskip("starlette.testclient", reason="the extra `serve`, and httpx2")
TOKEN = "t" * 32
X = np.zeros((2, 3), dtype=np.float32)
POLICY = Policy(stages=(0.5, 1.0), seconds=0, input_margin=None)


def model(x):
    if x.max() > 90:
        raise RuntimeError("a secret path: /etc/shadow")
    return np.tile(np.array([[0.1, 0.7, 0.2]], dtype=np.float32), (len(x), 1))


@pytest.fixture
def make(tmp_path):
    """Return `(model, **options) -> client`; each sends the token."""
    opened = []

    def client(served=model, shape=(1, 3), dtype=None, **options):
        metrics = Metrics()
        folder = tmp_path / str(len(opened))
        folder.mkdir()
        more = {"refresh": 0.02, "listener": metrics.hear, "dtype": dtype}
        router = Router(served, served, POLICY, folder / "a.db", **more)
        app = make_app(router, ServeOptions(**{"token": TOKEN, "rate": None} | options), metrics, shape)
        made = testclient.TestClient(app, headers={"authorization": f"Bearer {TOKEN}"})
        made.router = router
        made.__enter__()
        opened.append(made)
        return made

    yield client
    for one in opened:
        one.__exit__(None, None, None)


def test_predict_and_outcome_in_json(make):
    client = make()
    reply = client.post("/predict", json={"inputs": X.tolist(), "key": "me", "request": "r-1"})
    assert reply.status_code == 200
    answer = reply.json()
    np.testing.assert_allclose(answer["outputs"], model(X))
    assert answer["request"] == "r-1"
    first = client.post("/outcome", json={"receipt": answer["receipt"], "labels": [1, 2]})
    again = client.post("/outcome", json={"receipt": answer["receipt"], "labels": [1, 2]})
    assert (first.json(), again.json()) == ({"new": True}, {"new": False})


def test_predict_in_npy(make):
    client = make()
    headers = {"content-type": NPY, "accept": NPY, "x-corank-key": "me", "x-corank-request": "r-2"}
    reply = client.post("/predict", content=write_npy(X), headers=headers)
    assert reply.headers["content-type"] == NPY
    np.testing.assert_array_equal(np.load(io.BytesIO(reply.content), allow_pickle=False), model(X))
    assert reply.headers["x-corank-request"] == "r-2"
    outcome = {"receipt": reply.headers["x-corank-receipt"], "score": 0.5}
    assert client.post("/outcome", json=outcome).json() == {"new": True}


@pytest.mark.parametrize(
    ("path", "body", "code", "message"),
    [
        ("/predict", {}, 422, "inputs is missing"),
        ("/predict", {"inputs": [[1, 2]]}, 422, "allowed is the shape (any, 3), got (1, 2)"),
        ("/predict", {"inputs": [1, 2, 3]}, 422, "allowed is the shape (any, 3), got (3,)"),
        ("/predict", {"inputs": [[1, 2, 3]], "request": "x" * 300}, 422, "at most 200 characters"),
        ("/predict", {"inputs": [[1, 2, 3]], "key": "a\0"}, 422, "a name is printable text"),
        ("/outcome", {}, 422, "receipt: not one of the roll-out"),
        ("/outcome", {"receipt": "AAAA", "label": 1}, 422, "receipt: not one of the roll-out"),
        ("/outcome", {"receipt": 3, "label": 1}, 422, "receipt: not one of the roll-out"),
        ("/outcome", {"receipt": "AAAA", "lable": 1}, 422, "unknown key 'lable'; allowed are receipt, label"),
    ],
)
def test_bad_requests_get_one_clear_line(make, path, body, code, message):
    reply = make().post(path, json=body)
    assert reply.status_code == code
    assert message in reply.json()["error"]


def test_outcomes_that_do_not_fit_the_answer(make):
    client = make()
    receipt = client.post("/predict", json={"inputs": X.tolist()}).json()["receipt"]
    for more in ({}, {"label": 1}, {"labels": [1]}, {"labels": 3}, {"labels": [None, 1]}, {"score": 2}):
        assert client.post("/outcome", json={"receipt": receipt, **more}).status_code == 422


@pytest.mark.parametrize("path", ["/predict", "/outcome", "/status", "/metrics", "/absent", "/openapi.json"])
def test_nothing_opens_without_the_token(make, path):
    client = make()
    for header in ("", "Bearer", "Bearer wrong", f"Basic {TOKEN}", TOKEN):
        reply = client.request("GET", path, headers={"authorization": header})
        assert reply.status_code == 401
        assert reply.headers["www-authenticate"] == "Bearer"
    assert client.get("/healthz", headers={"authorization": ""}).json() == {"status": "running"}


def test_any_name_comes_back_in_the_header_of_an_npy(make):
    body = {"inputs": X.tolist(), "request": "山田\U0001f600 50%"}
    reply = make().post("/predict", json=body, headers={"accept": NPY})
    assert reply.status_code == 200
    assert unquote(reply.headers["x-corank-request"]) == body["request"]


def test_npy_of_another_dtype_is_cast_or_refused_and_counts_against_nobody(make):
    def strict(x):
        if x.dtype != np.float32:
            raise RuntimeError("unexpected dtype")
        return model(x)

    client = make(strict, dtype="float32")
    codes = {}
    for number in range(20):
        for dtype in ("float64", ">f4", "uint16", "float16", "complex64", "S4"):
            headers = {"content-type": NPY, "x-corank-key": f"{number}"}
            reply = client.post("/predict", content=write_npy(np.zeros((2, 3), dtype)), headers=headers)
            codes.setdefault(dtype, set()).add(reply.status_code)
    assert codes.pop("complex64") == codes.pop("S4") == {422}
    assert set.union(*codes.values()) == {200}
    reply = client.post("/predict", content=write_npy(np.full((2, 3), 1e300)), headers=headers)
    assert (reply.status_code, "as float32" in reply.json()["error"]) == (422, True)
    assert "corank_failures_total{" not in client.get("/metrics").text


def test_a_model_that_fails_says_nothing_of_the_inside(make, caplog):
    reply = make().post("/predict", json={"inputs": [[99, 99, 99]]})
    assert reply.status_code == 500
    assert reply.json() == {"error": "predict: the model failed on this input."}
    assert "secret" in caplog.text  # the log says it


def test_an_answer_that_is_not_finite(make):
    reply = make(lambda x: np.full((1, 3), np.nan)).post("/predict", json={"inputs": X.tolist()})
    assert (reply.status_code, reply.json()["error"]) == (500, "predict: the answer is not finite.")


def test_the_size_limit(make):
    client = make(max_bytes=1000)
    assert client.post("/predict", content=b"x" * 2000).status_code == 413
    assert client.post("/predict", content=iter([b"x" * 600] * 3)).status_code == 413  # without a length
    assert client.post("/outcome", content=b"x" * 1001).status_code == 413


def test_the_rate_limit(make):
    client = make(rate=0.5)
    codes = [client.get("/healthz").status_code for _ in range(3)]
    assert codes == [200, 429, 429]
    assert int(client.get("/healthz").headers["retry-after"]) >= 1


def test_the_time_limit_and_the_limit_of_requests_at_once(make):
    gate = threading.Event()

    def slow(x):
        gate.wait(20)
        return model(x)

    client = make(slow, seconds=0.1, concurrent=1)
    reply = client.post("/predict", json={"inputs": X.tolist()})
    assert (reply.status_code, reply.json()["error"]) == (504, "predict: no answer within 0.1 s.")
    assert client.post("/predict", json={"inputs": X.tolist()}).status_code == 503  # it is still at work
    gate.set()
    end = time.monotonic() + 20
    while client.post("/predict", json={"inputs": X.tolist()}).status_code == 503:
        assert time.monotonic() < end


def test_a_request_that_never_gets_a_thread_gives_its_place_back():
    slots, called = Slots(3), []

    async def ask():
        threads = anyio.CapacityLimiter(1)
        threads.acquire_on_behalf_of_nowait(object())  # another request has the only thread
        for _ in range(5):
            with pytest.raises(Exception, match="no answer within 0.01 s"):
                await _answer(lambda: called.append(1), slots, threads, 0.01)

    anyio.run(ask)
    assert (called, slots.count) == ([], 0)


@pytest.mark.parametrize("host", ["a/healthz?", "a/?", "a/healthz#"])
def test_the_host_header_opens_nothing(make, host):
    reply = make().get("/status", headers={"authorization": "", "host": host})
    assert reply.status_code == 401


def test_without_the_store_outcomes_are_refused_and_answers_go_on(make, monkeypatch):
    client = make()
    receipt = client.post("/predict", json={"inputs": X.tolist()}).json()["receipt"]

    def refuse(*_, **__):
        raise StoreError("store: gone")

    for name in ("write", "fold", "state"):
        monkeypatch.setattr(client.router.store, name, refuse)
    reply = client.post("/outcome", json={"receipt": receipt, "labels": [1, 1]})
    assert reply.status_code == 503
    assert "it may have been recorded or not. Try again: that is safe" in reply.json()["error"]
    assert client.get("/status").status_code == 503
    assert "corank_rollout_store_age_seconds" in client.get("/metrics").text
    assert client.post("/predict", json={"inputs": X.tolist()}).status_code == 200
    monkeypatch.undo()
    assert client.post("/outcome", json={"receipt": receipt, "labels": [1, 1]}).json() == {"new": True}


def test_an_outcome_that_is_waited_for_too_long_is_recorded_all_the_same(make, monkeypatch):
    client = make(seconds=0.2)
    receipts = [client.post("/predict", json={"inputs": X.tolist()}).json()["receipt"] for _ in range(2)]
    gate, write = threading.Event(), client.router.store.write

    def late(outcomes, *more):
        if outcomes:
            gate.wait(20)
        return write(outcomes, *more)

    monkeypatch.setattr(client.router.store, "write", late)
    for receipt in receipts:
        reply = client.post("/outcome", json={"receipt": receipt, "labels": [1, 1]})
        assert reply.status_code == 503
    gate.set()
    end = time.monotonic() + 20
    while client.get("/status").json()["outcomes"] < 2:
        assert time.monotonic() < end
        time.sleep(0.02)
    for receipt in receipts:
        assert client.post("/outcome", json={"receipt": receipt, "labels": [1, 1]}).json() == {"new": False}


def test_status_and_metrics(make):
    client = make()
    for number in range(40):
        client.post("/predict", json={"inputs": X.tolist(), "key": str(number)})
    status = client.get("/status").json()
    assert (status["status"], status["stage"], status["share"]) == ("running", 0, 0.5)
    text = client.get("/metrics").text
    counts = dict(re.findall(r'corank_answers_total\{arm="(\w+)"\} ([\d.]+)', text))
    assert sum(map(float, counts.values())) == 40
    assert min(map(float, counts.values())) > 0
    assert 'corank_rollout_status{status="running"} 1.0' in text
    assert 'corank_http_seconds_count{code="200",path="/predict"} 40.0' in text
    json.dumps(status, allow_nan=False)


def test_the_page_runs_its_own_script_only(make):
    reply = make().get("/", headers={"authorization": ""})
    script = reply.text.partition("<script>")[2].partition("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in reply.headers["content-security-policy"]
    assert "http" not in reply.text.replace("<!doctype html>", "")  # nothing from elsewhere
    assert "innerHTML" not in reply.text
