from __future__ import annotations

import subprocess
import sys

import corank

HEAVY = (
    "scipy",
    "rich",
    "typer",
    "onnx",
    "onnxruntime",
    "openvino",
    "jinja2",
    "matplotlib",
    "sklearn",
    "optuna",
    "sqlalchemy",
    "fastapi",
    "uvicorn",
    "prometheus_client",
    "tensorboard",
    "mlflow",
    "lightning",
    "transformers",
    "executorch",
)


def _run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_import_is_lean():
    """`import corank` brings nothing; its public names bring torch, numpy and safetensors only."""
    names = [name for name in corank.__all__ if name != "__version__"]
    code = "import sys, corank; first = 'torch' in sys.modules; "
    code += f"[getattr(corank, n) for n in {names}]; print(first); "
    code += f"print([m for m in {HEAVY} if m in sys.modules])"
    assert _run(code).split("\n")[:2] == ["False", "[]"]


def test_every_public_name_is_there_and_documented():
    for name in corank.__all__:
        value = getattr(corank, name)
        assert name in dir(corank)
        if callable(value):
            assert value.__doc__, f"{name} has no docstring"
