"""A receipt comes back as it was, or not at all."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corank.errors import ReceiptError
from corank.rollout.receipts import Receipt, read_receipt, write_receipt

RECEIPT = Receipt("request-1", 2, "challenger", True, (3, 1))


@settings(deadline=None)
@given(
    st.text(max_size=30),
    st.integers(0, 9),
    st.sampled_from(["champion", "challenger"]),
    st.booleans(),
    st.none() | st.lists(st.integers(0, 9999) | st.text(max_size=5)).map(tuple),
)
def test_it_comes_back_equal(request, stage, arm, paired, labels):
    receipt = Receipt(request, stage, arm, paired, labels)
    assert read_receipt(write_receipt(receipt, "secret", "name"), "secret", "name") == receipt


@settings(deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 63))
def test_whatever_is_changed_is_noticed(position, shift):
    text = write_receipt(RECEIPT, "secret", "name")
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    position %= len(text) - 1  # the last letter may hold unused bits
    other = letters[(letters.index(text[position]) + shift) % 64]
    with pytest.raises(ReceiptError, match="not one of the roll-out 'name'"):
        read_receipt(text[:position] + other + text[position + 1 :], "secret", "name")


@settings(deadline=None)
@given(st.text() | st.binary().map(lambda raw: raw.decode("latin-1")))
def test_what_is_none_is_refused(text):
    with pytest.raises(ReceiptError):
        read_receipt(text, "secret", "name")


def test_another_roll_out_does_not_take_it():
    text = write_receipt(RECEIPT, "secret", "name")
    for secret, name in (("other", "name"), ("secret", "other")):
        with pytest.raises(ReceiptError):
            read_receipt(text, secret, name)


def test_very_many_labels_are_left_out():
    text = write_receipt(Receipt("a", 0, "champion", False, tuple(range(5000))), "s", "n")
    assert read_receipt(text, "s", "n").labels is None
