"""Bodies: what is an array comes in as it was; whatever else is refused without harm."""

from __future__ import annotations

import io
import json
import pickle
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from corank.serving.bodies import JSON, NPY, BodyError, read_npy, read_object, read_request, write_npy

DTYPES = st.sampled_from([np.float32, np.float64, np.float16, np.int64, np.int32, np.uint8, np.bool_])


@settings(deadline=None)
@given(arrays.arrays(DTYPES, arrays.array_shapes(min_dims=0, max_dims=4, min_side=0), fill=st.nothing()))
def test_npy_comes_back_equal(array):
    again = read_npy(write_npy(array))
    assert again.dtype == array.dtype
    np.testing.assert_array_equal(again, array)
    again[...] = 0  # it may be written to
    np.testing.assert_array_equal(read_npy(write_npy(np.asfortranarray(array))), array)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200) | st.binary(max_size=150).map(lambda rest: write_npy(np.ones(3))[:90] + rest))
def test_what_is_no_npy_is_refused(raw):
    try:
        read_npy(raw)
    except BodyError:
        return
    assert raw.startswith(b"\x93NUMPY")


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1,",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }}",
        "  {\n 1",
        "{'descr': [], 'fortran_order': False, 'shape': (1,)}",
        "{'descr': ('<f4',), 'fortran_order': False, 'shape': (1,)}",
        "{'descr': [('a',)], 'fortran_order': False, 'shape': (1,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': ('a',)}",
        "{[]: 1}",
        '"',
        "(" * 300,
    ],
)
def test_headers_of_npy_that_python_cannot_read(header):
    raw = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + b"\0" * 4
    with pytest.raises(BodyError) as error:
        read_npy(raw)
    assert error.value.code == 422


def test_names_in_headers_are_percent_encoded():
    raw = write_npy(np.ones(1))
    asked = read_request(raw, NPY, {"x-corank-key": "%E5%B1%B1 7%25", "x-corank-request": "r-1"})
    assert (asked.key, asked.request) == ("山 7%", "r-1")
    for bad in ("%ff", "\xe9"):
        with pytest.raises(BodyError, match="x-corank-key: allowed is UTF-8, percent-encoded"):
            read_request(raw, NPY, {"x-corank-key": bad})


def test_npy_with_objects_is_never_unpickled():
    file = io.BytesIO()
    np.save(file, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(BodyError, match="an npy of numbers is allowed, got object"):
        read_npy(file.getvalue())
    with pytest.raises(BodyError, match="no npy"):
        read_npy(pickle.dumps(np.ones(3)))


def test_an_npy_that_promises_much_takes_no_memory():
    file = io.BytesIO()
    header = {"descr": "|u1", "fortran_order": False, "shape": (9_000_000_000,)}
    np.lib.format.write_array_header_1_0(file, header)
    raw = file.getvalue() + b"1234"
    tracemalloc.start()
    with pytest.raises(BodyError, match="the npy promises 9000000000 bytes and has 4"):
        read_npy(raw)
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


@pytest.mark.parametrize(
    ("body", "kind", "code", "message"),
    [
        (b"", JSON, 422, "it is no JSON"),
        (b"[" * 100_000, JSON, 422, "it is no JSON"),
        (b"[1]", JSON, 422, "allowed is an object, got a list"),
        (b"{}", JSON, 422, "inputs is missing"),
        (b'{"inputs": [[1], [1, 2]]}', JSON, 422, "all of one length"),
        (b'{"inputs": "text"}', JSON, 422, "nested lists of numbers"),
        (b'{"inputs": [null]}', JSON, 422, "nested lists of numbers"),
        (b'{"inputs": [1], "dtype": "object"}', JSON, 422, "dtype: allowed are float32"),
        (b'{"inputs": [1], "dtype": [1]}', JSON, 422, "dtype: allowed are float32"),
        (b'{"inputs": [1], "pickle": 1}', JSON, 422, "unknown key 'pickle'; allowed are inputs, dtype"),
        (b'{"inputs": [1], "key": 3}', JSON, 422, "key: allowed is a text, got a int"),
        (b'{"inputs": [NaN]}', JSON, 422, "NaN or infinite"),
        (b'{"inputs": [1e300]}', JSON, 422, "NaN or infinite"),
        (b"", NPY, 422, "no npy"),
        (b"x", "text/plain", 415, "content-type: allowed are"),
        (b"x", "application/python-pickle", 415, "content-type: allowed are"),
        (b"x", "", 415, "content-type: allowed are"),
    ],
)
def test_what_is_refused(body, kind, code, message):
    with pytest.raises(BodyError) as error:
        read_request(body, kind, {})
    assert error.value.code == code
    assert message in str(error.value)


def test_json_and_npy_say_the_same():
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    body = json.dumps({"inputs": array.tolist(), "key": "me", "request": "r"}).encode()
    one = read_request(body, "Application/JSON; charset=utf-8", {})
    two = read_request(write_npy(array), NPY, {"x-corank-key": "me", "x-corank-request": "r"})
    assert (one.key, one.request) == (two.key, two.request) == ("me", "r")
    assert one.inputs.dtype == two.inputs.dtype == np.float32
    np.testing.assert_array_equal(one.inputs, two.inputs)
    whole = read_request(b'{"inputs": [[7]], "dtype": "int64"}', JSON, {})
    assert whole.inputs.dtype == np.int64


def test_an_npy_of_the_other_order_of_bytes_is_turned_round():
    array = np.arange(6, dtype=">f4").reshape(2, 3)
    again = read_npy(write_npy(array))
    assert again.dtype == np.float32
    assert again.dtype.isnative
    np.testing.assert_array_equal(again, array)


def test_json_is_never_cut_or_wrapped():
    assert read_request(b'{"inputs": [1, 0], "dtype": "bool"}', JSON, {}).inputs.dtype == bool
    assert read_request(b'{"inputs": [7]}', JSON, {}, "int64").inputs.dtype == np.int64
    for body in (b'{"inputs": [1.5], "dtype": "int64"}', b'{"inputs": [300], "dtype": "uint8"}'):
        with pytest.raises(BodyError, match="inputs: "):
            read_request(body, JSON, {})


@settings(deadline=None)
@given(st.binary(max_size=100) | st.text(max_size=50).map(str.encode))
def test_no_bytes_do_harm(raw):
    try:
        read_object(raw, ("a",))
    except BodyError:
        return
    assert isinstance(json.loads(raw), dict)
