"""Options, the token, and the bucket of requests."""

from __future__ import annotations

import socket

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corank.errors import CorankError
from corank.serving.limits import Buckets, is_allowed
from corank.serving.options import ServeOptions
from corank.serving.running import listen

TOKEN = "t" * 20


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"host": "0.0.0.0"}, "can be reached from elsewhere, so a token is needed"),
        ({"token": "short"}, "a token has at least 16 characters, got 5"),
        ({"port": 70_000}, "port is at most 65535"),
        ({"port": -1}, "port is a whole number from 0, got -1"),
        ({"max_bytes": 0}, "max_bytes is a whole number from 1"),
        ({"concurrent": True}, "concurrent is a whole number from 1, got True"),
        ({"seconds": 0}, "seconds is a number above 0, got 0"),
        ({"rate": float("inf")}, "rate is a number above 0, got inf"),
    ],
)
def test_limits_that_are_not_allowed(values, message):
    with pytest.raises(CorankError, match=message):
        ServeOptions(**values)


def test_open_to_the_world_with_a_token():
    assert ServeOptions(host="0.0.0.0", token=TOKEN).token == TOKEN


@settings(deadline=None)
@given(st.text())
def test_only_the_token_opens(text):
    assert is_allowed(f"Bearer {text}", TOKEN) is (text == TOKEN)
    assert not is_allowed(text, TOKEN)
    assert not is_allowed(f"Basic {TOKEN}", TOKEN)
    assert not is_allowed(None, TOKEN)


@settings(deadline=None)
@given(st.lists(st.floats(0, 2), max_size=200), st.floats(0.5, 20))
def test_no_more_than_the_rate_and_its_burst_get_through(gaps, rate):
    buckets, now, taken = Buckets(rate), 0.0, 0
    for gap in gaps:
        now += gap
        taken += buckets.wait("here", now) == 0.0
    assert taken <= max(2 * rate, 1) + rate * now + 1e-6


def test_addresses_do_not_share_a_bucket_and_few_are_remembered():
    buckets = Buckets(0.5)
    assert buckets.wait("a", 0.0) == buckets.wait("b", 0.0) == 0.0
    assert buckets.wait("a", 0.0) == pytest.approx(2.0)
    for number in range(20_000):
        buckets.wait(str(number), 0.0)
    assert len(buckets._left) <= 10_001
    assert Buckets(None).wait("a", 0.0) == 0.0


def test_an_address_that_is_taken_is_said_and_replies_do_not_wait():
    with listen(ServeOptions(port=0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(CorankError, match=f"cannot listen on 127.0.0.1:{port}"):
            listen(ServeOptions(port=port))
        assert taken.proto == socket.IPPROTO_TCP  # or asyncio leaves Nagle's delay on: 40 ms a reply
