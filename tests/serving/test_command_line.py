"""`corank bundle`, `serve` and `rollout` as a user runs them; the examples of their help run as they are."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from safetensors.torch import save_file

from corank.rollout.splits import place
from corank.rollout.store import Store
from tests.cli.running import corank
from tests.serving.mine import trained

__all__ = ["corank"]  # a fixture
HERE = Path(__file__).parent
X = [[[[0.5] * 32] * 32] * 3]


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with a model's file and two bundles of it."""
    shutil.copy(HERE / "mine.py", tmp_path / "mine.py")
    save_file(trained().state_dict(), tmp_path / "small.safetensors")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("mine", None)


def example(verb):
    """Return the words of the example in a verb's help."""
    text = (HERE.parents[1] / "src" / "corank" / "cli" / f"{verb}.py").read_text()
    return shlex.split(re.search(r"Example: corank (.*)", text)[1])


SERVE = ("serve", "--champion", "small", "--challenger", "small")


class Server:
    """`corank serve` as a process of its own."""

    def __init__(self, words, folder):
        program = "from corank.cli import main; main()"
        self.process = subprocess.Popen(
            [sys.executable, "-c", program, *words], cwd=folder, stdout=subprocess.PIPE, text=True
        )
        self.where = self.process.stdout.readline().strip()
        assert self.where.startswith("http://"), self.where

    def ask(self, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            self.where + path, data, {"content-type": "application/json"} if data else {}
        )
        with urllib.request.urlopen(request, timeout=30) as reply:
            return json.loads(reply.read())

    def stop(self, number):
        self.process.send_signal(number)
        code = self.process.wait(30)
        self.process.stdout.close()
        return code


def test_the_examples_of_the_help_run(corank, project):
    code, out, err = corank(*example("bundle"))
    assert code == 0, err
    corank(*[word if word != "small" else "dense" for word in example("bundle")])
    assert out.startswith("small: ")
    words = [word if word != "8000" else "0" for word in example("serve")]  # a free port
    server = Server(words, project)
    answers = [
        server.ask("/predict", {"inputs": X, "key": f"user-{n}", "request": f"r-{n}"}) for n in range(6)
    ]
    for answer in answers[:3]:
        assert server.ask("/outcome", {"receipt": answer["receipt"], "label": 1}) == {"new": True}
    assert server.stop(signal.SIGKILL) == -9
    server = Server(words, project)  # what was acknowledged is there, and no more
    new = [server.ask("/outcome", {"receipt": a["receipt"], "label": 1})["new"] for a in answers]
    assert new == [False] * 3 + [True] * 3
    salt = Store("rollout.db").terms().salt
    assert 0 <= place(salt, "user-1") < 1
    assert server.stop(signal.SIGTERM) == 0  # after writing what waits
    code, out, err = corank(*example("rollout"))
    assert code == 0, err
    shown = json.loads(out)
    assert (shown["status"], shown["outcomes"], shown["seen"]) == ("running", 6, 6)
    code, out, _ = corank("rollout", "roll-back")
    assert json.loads(out)["moves"][-1]["reason"] == "by order"
    save_file({key: value + 1 for key, value in trained().state_dict().items()}, "other.safetensors")
    more = ["--model", "mine:make_model", "--out", "other", "--shape", "1,3,32,32"]
    assert corank("bundle", "other.safetensors", *more)[0] == 0
    code, _, err = corank("serve", "--champion", "dense", "--challenger", "other", "--port", "0")
    assert (code, "it began with challenger" in err) == (2, True)  # another challenger is another roll-out


BAD = {
    "no bundle": (
        ["serve", "--champion", "absent", "--challenger", "small"],
        "absent/bundle.json: cannot be read",
    ),
    "a policy's unknown key": (
        [*SERVE, "--policy", "policy.toml"],
        "policy.toml: unknown key 'stage'; the nearest is 'stages'",
    ),
    "a policy not there": (
        [*SERVE, "--policy", "absent.toml"],
        "absent.toml: cannot be read",
    ),
    "open without a token": (
        [*SERVE, "--host", "0.0.0.0"],
        "so a token is needed",
    ),
    "a token not there": (
        [*SERVE, "--token-file", "absent"],
        "absent: cannot be read",
    ),
    "an address of others": (
        [*SERVE, "--host", "127.0.0.1", "--port", "70000"],
        "port is at most 65535",
    ),
    "a rate": (
        [*SERVE, "--rate", "-1"],
        "rate is a number above 0",
    ),
    "a store": (
        [*SERVE, "--store", "mysql://a", "--port", "0"],
        "allowed are sqlite and postgresql",
    ),
    "other inputs": (
        ["serve", "--champion", "small", "--challenger", "other", "--port", "0"],
        "They must take the same",
    ),
    "a bundle of a pickle": (["bundle", "a.pth", "--out", "new"], "allowed are .safetensors and .onnx"),
    "a bundle without a network": (["bundle", "small.safetensors", "--out", "new"], "needs its network"),
    "a bundle's file that does not fit": (
        ["bundle", "small.safetensors", "--out", "new", "--model", "torch.nn:Identity"],
        "small.safetensors: ",
    ),
    "a bundle's shape": (
        ["bundle", "small.safetensors", "--out", "new", "--model", "mine:make_model", "--shape", "1,x"],
        "allowed are whole numbers",
    ),
    "a bundle's dtype": (
        ["bundle", "small.safetensors", "--out", "new", "--model", "mine:make_model", "--dtype", "half"],
        "bundle: dtype: allowed are",
    ),
    "a roll-out's command": (["rollout", "stop"], "allowed are status, hold, resume, advance, roll-back"),
    "a roll-out's store": (["rollout", "status", "--store", "absent.db"], "absent.db: there is no such file"),
}


def test_a_bundle_says_the_dtype_of_its_inputs(corank, project):
    words = ["bundle", "small.safetensors", "--model", "mine:make_model"]
    assert corank(*words, "--out", "plain")[0] == 0
    assert corank(*words, "--out", "tokens", "--dtype", "int64")[0] == 0
    manifests = [json.loads((project / name / "bundle.json").read_text()) for name in ("plain", "tokens")]
    assert [one["dtype"] for one in manifests] == ["float32", "int64"]


@pytest.fixture
def bundled(project, corank):
    for name, shape in (("small", "1,3,32,32"), ("other", "1,3,16,16")):
        words = ["bundle", "small.safetensors", "--model", "mine:make_model", "--out", name, "--shape", shape]
        assert corank(*words)[0] == 0
    (project / "policy.toml").write_text("stage = [1]\n")
    (project / "a.pth").write_bytes(b"")
    return project


def test_bad_input_is_one_line_and_exit_code_2_and_leaves_nothing(corank, bundled):
    before = sorted(bundled.rglob("*.*"))
    for name, (words, message) in BAD.items():
        code, _, err = corank(*words)
        assert code == 2, name
        assert message in err, name
        assert len(err.strip().splitlines()) == 1, name
        left = [path for path in bundled.rglob("*.*") if path.suffix != ".pyc" and path not in before]
        assert left == [], name
