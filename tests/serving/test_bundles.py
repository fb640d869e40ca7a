"""Bundles: the checksum finds every change, and what was saved answers as before."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import corank
from corank.errors import CorankError, FileError
from corank.serving.bundles import check_file, load_bundle, read_bundle, write_bundle


def make() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 4))


@pytest.fixture
def trained(tmp_path):
    torch.manual_seed(0)
    net = make()
    save_file(net.state_dict(), tmp_path / "net.safetensors")
    return net.eval()


X = np.random.default_rng(0).normal(size=(5, 3, 4)).astype(np.float32)


def test_safetensors_of_ours_and_of_others(trained, tmp_path):
    corank.save(trained, tmp_path / "ours.safetensors", reference=make)
    with torch.no_grad():
        wanted = trained(torch.from_numpy(X)).numpy()
    for name in ("net", "ours"):
        write_bundle(tmp_path / name, tmp_path / f"{name}.safetensors", factory="a:b", shape=(1, 3, 4))
        bundle = read_bundle(tmp_path / name)
        assert (bundle.factory, bundle.shape, bundle.format) == ("a:b", (1, 3, 4), "safetensors")
        np.testing.assert_array_equal(load_bundle(bundle, make)(X), wanted)


@pytest.fixture
def graph(trained):
    """Return `(kind of input) -> an ONNX model of the trained network`."""
    pytest.importorskip("onnxruntime", reason="the extra `onnx`")
    onnx = pytest.importorskip("onnx", reason="the extra `onnx`")

    def make_graph(kind=1):
        weights = {name: value.numpy() for name, value in trained.state_dict().items()}
        nodes = [
            onnx.helper.make_node("Cast", ["x"], ["x32"], to=1),
            onnx.helper.make_node("Flatten", ["x32"], ["a"]),
            onnx.helper.make_node("Gemm", ["a", "1.weight", "1.bias"], ["b"], transB=1),
            onnx.helper.make_node("Relu", ["b"], ["c"]),
            onnx.helper.make_node("Gemm", ["c", "3.weight", "3.bias"], ["y"], transB=1),
        ]
        ends = [
            onnx.helper.make_tensor_value_info("x", kind, ["n", 3, 4]),
            onnx.helper.make_tensor_value_info("y", 1, ["n", 4]),
        ]
        stored = [onnx.numpy_helper.from_array(value, name) for name, value in weights.items()]
        made = onnx.helper.make_graph(nodes, "net", ends[:1], ends[1:], stored)
        return onnx.helper.make_model(made, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)

    return make_graph


def test_onnx(trained, graph, tmp_path):
    import onnx

    onnx.save(graph(), tmp_path / "net.onnx")
    bundle = write_bundle(tmp_path / "bundle", tmp_path / "net.onnx")
    assert (bundle.factory, bundle.dtype) == (None, "float32")
    got = load_bundle(read_bundle(tmp_path / "bundle"))(X)
    np.testing.assert_allclose(got, trained(torch.from_numpy(X)).detach().numpy(), atol=1e-5)


def test_onnx_with_weights_elsewhere_is_refused(graph, tmp_path):
    import onnx

    where = {"save_as_external_data": True, "location": "net.data", "size_threshold": 0}
    onnx.save(graph(), tmp_path / "net.onnx", **where)
    with pytest.raises(FileError, match=r"keeps weights in net\.data, which no bundle holds\. Save it with"):
        check_file(tmp_path / "bundle", tmp_path / "net.onnx")
    with pytest.raises(FileError, match="keeps weights in"):
        write_bundle(tmp_path / "bundle", tmp_path / "net.onnx")
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize(("kind", "dtype"), [(1, "float32"), (10, "float16"), (11, "float64"), (7, "int64")])
def test_inputs_are_cast_to_what_an_onnx_takes(graph, tmp_path, kind, dtype):
    import onnx

    onnx.save(graph(kind), tmp_path / "net.onnx")
    bundle = write_bundle(tmp_path / "bundle", tmp_path / "net.onnx")
    assert read_bundle(tmp_path / "bundle").dtype == bundle.dtype == dtype
    model, whole = load_bundle(bundle), np.arange(12).reshape(1, 3, 4)
    wanted = model(whole.astype(dtype))
    for given in ("uint16", "int32", "int64") if dtype == "int64" else ("uint16", "float16", "float64"):
        np.testing.assert_array_equal(model(whole.astype(given)), wanted)
    with pytest.raises(CorankError, match="takes|cannot become"):
        write_bundle(tmp_path / "other", tmp_path / "net.onnx", dtype="bool")


def test_a_network_of_whole_numbers(tmp_path):
    def words():
        return nn.Embedding(5, 2)

    save_file(words().state_dict(), tmp_path / "net.safetensors")
    bundle = write_bundle(tmp_path / "b", tmp_path / "net.safetensors", factory="a:b", dtype="int64")
    model = load_bundle(read_bundle(tmp_path / "b"), words)
    assert model(np.array([[1, 2]], dtype=np.uint8)).shape == (1, 2, 2)
    with pytest.raises(CorankError, match="float32 cannot become int64"):
        model(np.array([[1.0]], dtype=np.float32))
    with pytest.raises(CorankError, match="dtype: allowed are float32"):
        write_bundle(tmp_path / "c", tmp_path / "net.safetensors", factory="a:b", dtype="object")
    assert bundle.dtype == "int64"


def test_a_bundle_of_an_older_corank_keeps_its_digest(trained, tmp_path):
    bundle = write_bundle(tmp_path / "b", tmp_path / "net.safetensors", factory="a:b")
    old = dataclasses.replace(bundle, dtype=None)
    assert "dtype" not in old.values()
    manifest = {"schema": 1, **old.values(), "digest": old.digest}
    (tmp_path / "b" / "bundle.json").write_text(json.dumps(manifest))
    assert read_bundle(tmp_path / "b") == old
    np.testing.assert_array_equal(load_bundle(old, make)(X), load_bundle(bundle, make)(X))


def test_every_changed_byte_is_found(trained, tmp_path):
    folder = tmp_path / "bundle"
    bundle = write_bundle(folder, tmp_path / "net.safetensors", factory="a:b")
    assert read_bundle(folder) == bundle
    path = folder / "net.safetensors"
    raw = path.read_bytes()
    for place in (0, len(raw) // 2, len(raw) - 1):
        path.write_bytes(raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :])
        with pytest.raises(FileError, match="its checksum is not the bundle's"):
            read_bundle(folder)
    path.write_bytes(raw)
    manifest = json.loads((folder / "bundle.json").read_text())
    for key, value in (("factory", "os:system"), ("shape", [1]), ("sha256", "0" * 64)):
        (folder / "bundle.json").write_text(json.dumps(manifest | {key: value}))
        with pytest.raises(FileError, match="changed after it was made"):
            read_bundle(folder)


def test_two_bundles_of_one_file_are_the_same_and_of_two_are_not(trained, tmp_path):
    one, two = (write_bundle(tmp_path / n, tmp_path / "net.safetensors", factory="a:b") for n in "ab")
    assert one.digest == two.digest
    (tmp_path / "other").mkdir()
    save_file(make().state_dict(), tmp_path / "other" / "net.safetensors")
    assert (
        write_bundle(tmp_path / "c", tmp_path / "other" / "net.safetensors", factory="a:b").digest
        != one.digest
    )


def test_what_is_wrong_is_said_and_nothing_is_left(trained, tmp_path):
    folder = tmp_path / "bundle"
    (tmp_path / "a.pth").write_bytes(b"")
    for model, options, message in (
        ("a.pth", {}, "allowed are .safetensors and .onnx files, got 'a.pth'"),
        ("net.safetensors", {}, "net.safetensors needs its network"),
        ("absent.onnx", {}, "there is no such file"),
    ):
        with pytest.raises(CorankError, match=message):
            write_bundle(folder, tmp_path / model, **options)
        assert not folder.exists()
    with pytest.raises(FileError, match="cannot be read"):
        read_bundle(folder)
    folder.mkdir()
    for text in ("", "[]", "{}", '{"schema": 1}', '{"schema": 1, "digest": "", "shape": 3}'):
        (folder / "bundle.json").write_text(text)
        with pytest.raises(FileError, match="is no bundle"):
            read_bundle(folder)
    (folder / "bundle.json").write_text('{"schema": 9}')
    with pytest.raises(FileError, match="reads schema 1"):
        read_bundle(folder)
    with pytest.raises(FileError, match="holds a bundle, which must not change"):
        write_bundle(folder, tmp_path / "net.safetensors", factory="a:b")


def test_a_manifest_cannot_lead_out_of_its_folder(trained, tmp_path):
    folder = tmp_path / "bundle"
    bundle = write_bundle(folder, tmp_path / "net.safetensors", factory="a:b")
    (folder / "net.safetensors").unlink()
    manifest = json.loads((folder / "bundle.json").read_text())
    for file in ("../net.safetensors", "/net.safetensors", "..", ""):
        forged = dataclasses.replace(bundle, file=file)
        manifest |= {"file": file, "digest": forged.digest}
        (folder / "bundle.json").write_text(json.dumps(manifest))
        with pytest.raises(FileError, match="file is a plain name in this folder"):
            read_bundle(folder)
    assert bundle.file == "net.safetensors"


def test_a_broken_onnx_is_said(tmp_path):
    pytest.importorskip("onnxruntime", reason="the extra `onnx`")
    (tmp_path / "net.onnx").write_bytes(b"no onnx")
    with pytest.raises(FileError, match="it is no ONNX"):
        load_bundle(write_bundle(tmp_path / "bundle", tmp_path / "net.onnx"))
    save_file(make().state_dict(), tmp_path / "net.safetensors")
    bundle = write_bundle(tmp_path / "b", tmp_path / "net.safetensors", factory="a:b")
    with pytest.raises(CorankError, match="need the network's factory, a:b"):
        load_bundle(bundle)
