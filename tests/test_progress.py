"""Progress: plain lines with rate and remaining time, a bar on a terminal, silence when asked."""

from __future__ import annotations

import io
import logging
import re
import sys

from corank import progress
from corank.progress import Meter, track


def _lines(caplog, label):
    return [one.message for one in caplog.records if one.message.startswith(label)]


def test_off_a_terminal_there_are_few_lines_with_rate_and_remaining_time(caplog, monkeypatch):
    clock = iter(range(10_000))
    monkeypatch.setattr(progress.time, "perf_counter", lambda: float(next(clock)))
    with caplog.at_level(logging.INFO):
        assert list(track(list(range(20)), "work")) == list(range(20))
    lines = _lines(caplog, "work")
    assert 3 <= len(lines) <= 5
    assert lines[0] == "work: 5 of 20, 1.0/s, 15 s left"
    assert lines[-1] == "work: 20 of 20, 1.0/s, 0 s left"


def test_a_resumed_piece_of_work_counts_its_own_rate(caplog, monkeypatch):
    clock = iter(range(0, 10_000, 2))
    monkeypatch.setattr(progress.time, "perf_counter", lambda: float(next(clock)))
    with caplog.at_level(logging.INFO), Meter("work") as meter:
        meter.start(10, done=7)
        for _ in range(3):
            meter.advance()
    assert _lines(caplog, "work")[-1] == "work: 10 of 10, 0.5/s, 0 s left"


def test_what_has_no_length_says_so(caplog):
    with caplog.at_level(logging.INFO), Meter("work") as meter:
        meter.start(None)
        meter._told -= 60
        meter.advance()
        meter.note("half way")
    assert re.fullmatch(r"work: 1 of unknown, .*/s", _lines(caplog, "work")[0])
    assert _lines(caplog, "work")[1] == "work: half way"


def test_on_a_terminal_there_is_a_bar(caplog, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("NO_COLOR", "1")
    with caplog.at_level(logging.INFO):
        assert list(track([1, 2, 3], "work")) == [1, 2, 3]
    assert "work" in terminal.getvalue()
    assert "3/3" in terminal.getvalue()
    assert "\x1b[3" not in terminal.getvalue()  # a colour
    assert _lines(caplog, "work") == []


def test_it_is_silent_when_asked(caplog, capsys):
    with caplog.at_level(logging.INFO):
        assert list(track([1, 2], "work", enabled=False)) == [1, 2]
    assert _lines(caplog, "work") == []
    assert capsys.readouterr().err == ""
