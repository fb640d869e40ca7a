"""Run the command line in this process."""

from __future__ import annotations

import logging
import sys

import pytest

from corank.cli import main


@pytest.fixture
def corank(monkeypatch, capsys, tmp_path):
    """Return `(*words) -> (exit code, standard output, standard error)`, run in an empty folder."""
    monkeypatch.chdir(tmp_path)
    loggers = [
        logging.getLogger(name) for name in (None, "onnxscript", "onnx_ir", "torch.onnx", "matplotlib")
    ]
    levels = [one.level for one in loggers]

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["corank", *map(str, words)])
        with pytest.raises(SystemExit) as stopped:
            main()
        said = capsys.readouterr()
        return stopped.value.code or 0, said.out, said.err

    yield run
    for one, level in zip(loggers, levels, strict=True):
        one.setLevel(level)
