"""The deployment of Ray Serve: two replicas on one roll-out, where Ray is installed."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
import types
import urllib.request

import numpy as np
import pytest

from corank.errors import CorankError, ExtraError
from corank.rollout import Policy, Router
from corank.serving.options import ServeOptions
from corank.serving.ray_serve import make_deployment


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray.serve", None)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ExtraError, match="corank\\[ray\\]"):
        make_deployment(lambda listener: None, without_token=True)
    with pytest.raises(CorankError, match="build is a int"):
        make_deployment(3)


def test_what_would_leave_the_door_open_or_the_metrics_empty_is_refused():
    with pytest.raises(CorankError, match="so a token is needed"):
        make_deployment(lambda listener: None)
    with pytest.raises(CorankError, match="build takes one argument, the router's listener"):
        make_deployment(lambda: None, without_token=True)


def test_each_replica_hears_its_own_router(monkeypatch, tmp_path):
    """Ray itself is stood in for: what it would be given to serve is asked over HTTP."""
    testclient = pytest.importorskip("starlette.testclient", reason="the extra `serve`, and httpx2")
    given = []
    serve = types.ModuleType("ray.serve")
    serve.ingress = lambda make: lambda: given.append(make)
    serve.deployment = lambda **options: lambda app: types.SimpleNamespace(bind=lambda: app)
    monkeypatch.setitem(sys.modules, "ray", types.ModuleType("ray"))
    monkeypatch.setitem(sys.modules, "ray.serve", serve)

    def build(listener):
        def model(x):
            return np.tile(np.array([[0.1, 0.7, 0.2]]), (len(x), 1))

        policy = Policy(stages=(0.5, 1.0), seconds=0)
        return Router(model, model, policy, tmp_path / "a.db", listener=listener)

    make_deployment(build, ServeOptions(token="t" * 32))
    head = {"authorization": "Bearer " + "t" * 32}
    with testclient.TestClient(given[0](), headers=head) as client:
        assert client.get("/metrics", headers={"authorization": ""}).status_code == 401
        for number in range(20):
            client.post("/predict", json={"inputs": [[1, 2]], "key": str(number)})
        counts = re.findall(r"corank_answers_total\{[^}]*\} ([\d.]+)", client.get("/metrics").text)
    assert sum(map(float, counts)) == 20


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_two_replicas_share_one_roll_out(postgres):
    if importlib.util.find_spec("ray") is None:
        pytest.skip("Ray is not installed: pip install 'corank[ray]'")
    import ray
    from ray import serve

    url = postgres

    def build(listener):
        import numpy as np

        from corank.rollout import Policy, Router

        def model(x):
            return np.tile(np.array([[0.1, 0.7, 0.2]]), (len(x), 1))

        return Router(model, model, Policy(stages=(0.5, 1.0), seconds=0), url, name="ray", listener=listener)

    def ask(path, body=None):
        data = None if body is None else json.dumps(body).encode()
        head = {"content-type": "application/json"}
        request = urllib.request.Request(f"http://127.0.0.1:8765{path}", data, head)
        with urllib.request.urlopen(request, timeout=60) as reply:
            return json.loads(reply.read())

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        serve.start(http_options={"host": "127.0.0.1", "port": 8765})
        options = {"num_replicas": 2, "ray_actor_options": {"num_cpus": 0.5}}
        serve.run(make_deployment(build, without_token=True, **options), name="corank")
        answers = [ask("/predict", {"inputs": [[1, 2]], "key": f"user-{n}"}) for n in range(20)]
        new = [
            [ask("/outcome", {"receipt": one["receipt"], "label": 1})["new"] for one in answers]
            for _ in range(2)
        ]
        assert new == [[True] * 20, [False] * 20]
        assert ask("/status")["name"] == "ray"
    finally:
        serve.shutdown()
        ray.shutdown()
