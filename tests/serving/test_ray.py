"""The deployment of Ray Serve: two replicas on one roll-out, where Ray is installed."""

from __future__ import annotations

import importlib.util
import json
import sys
import urllib.request

import pytest

from corank.errors import CorankError, ExtraError
from corank.serving.ray_serve import make_deployment


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray.serve", None)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ExtraError, match="corank\\[ray\\]"):
        make_deployment(lambda: None)
    with pytest.raises(CorankError, match="build is a int"):
        make_deployment(3)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_two_replicas_share_one_roll_out(postgres):
    if importlib.util.find_spec("ray") is None:
        pytest.skip("Ray is not installed: pip install 'corank[ray]'")
    import ray
    from ray import serve

    url = postgres

    def build():
        import numpy as np

        from corank.rollout import Policy, Router

        def model(x):
            return np.tile(np.array([[0.1, 0.7, 0.2]]), (len(x), 1))

        return Router(model, model, Policy(stages=(0.5, 1.0), seconds=0), url, name="ray")

    def ask(path, body=None):
        data = None if body is None else json.dumps(body).encode()
        head = {"content-type": "application/json"}
        request = urllib.request.Request(f"http://127.0.0.1:8765{path}", data, head)
        with urllib.request.urlopen(request, timeout=60) as reply:
            return json.loads(reply.read())

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        serve.start(http_options={"host": "127.0.0.1", "port": 8765})
        serve.run(make_deployment(build, num_replicas=2, ray_actor_options={"num_cpus": 0.5}), name="corank")
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
