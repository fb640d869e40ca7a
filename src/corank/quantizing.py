"""An exported file in int8: static quantization by ONNX Runtime, which ONNX Runtime and OpenVINO both run."""

from __future__ import annotations

import importlib
import os
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from corank.engines import Array, import_onnxruntime, silenced
from corank.errors import CorankError, FileError, one_line
from corank.exported import arrange, open_exported
from corank.exporting import relative_error
from corank.extras import import_extra
from corank.files import replacing


@dataclass(frozen=True, slots=True)
class Quantized:
    """An int8 file, how many batches its ranges come from, and how far it is from the float file.

    `error` is the largest difference of an output divided by the largest magnitude of that output, on the
    first batch. It says little of accuracy: measure that, with `corank.open_exported`.
    """

    path: Path
    batches: int
    error: float
    size: int  # bytes
    float_size: int

    def __str__(self) -> str:
        return (
            f"{self.path}: int8, {self.size / 1e6:.2f} MB of {self.float_size / 1e6:.2f} MB; ranges from "
            f"{self.batches} batches; relative error {self.error:.1e} on the first"
        )


def quantize(
    path: str | os.PathLike[str],
    batches: Iterable[Any],
    out: str | os.PathLike[str],
    *,
    max_batches: int = 20,
) -> Quantized:
    """Write an ONNX file that `corank.export` wrote once more, with int8 weights and uint8 maps.

    Static, as pairs of quantize and dequantize, with a scale a filter and the range of each map the smallest
    and largest value on the batches. Batch norms are folded first.

    Args:
        path: a float32 ONNX file.
        batches: what the network will see, as for `calibrate`: of a tuple the first item is the input; a
            mapping is taken by name.
        out: the file to write.
        max_batches: of `batches`, take so many.
    Returns: a Quantized.
    Raises: FileError, for a file that is absent, no ONNX, int8 already, or that ONNX Runtime cannot quantize;
        CorankError, for no batch, or one that is empty, not finite or does not fit the file's inputs;
        ExtraError, without onnx or onnxruntime.

    >>> from corank.exporting import export
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     example = torch.randn(4, 8)
    ...     _ = export(torch.nn.Linear(8, 2), example, f"{folder}/net.onnx")
    ...     quantize(f"{folder}/net.onnx", [example], f"{folder}/int8.onnx").error < 0.1
    True
    """
    path, out = Path(path), Path(out)
    for file in (path, out):
        if file.suffix != ".onnx":
            raise FileError(
                f"{file}: allowed is the suffix .onnx, got {file.suffix!r}. Export to .onnx first."
            )
    if not path.is_file():
        raise FileError(f"{path}: there is no such file. Write it by corank.export first.")
    if max_batches < 1:
        raise CorankError(f"quantize: max_batches is a whole number from 1, got {max_batches}.")
    dense = open_exported(path)
    _require_float(path)
    feeds = [_arrays(batch, dense.inputs, path) for batch in islice(batches, max_batches)]
    if not feeds:
        raise CorankError("quantize: there is no batch. Give a loader, or a list, with at least one.")
    wanted = dense.run(feeds[0])
    with replacing(out) as draft:
        write_int8(path, feeds, draft)
        error = max(
            relative_error(torch.from_numpy(a), torch.from_numpy(b))
            for a, b in zip(wanted, open_exported(draft).run(feeds[0]), strict=True)
        )
    return Quantized(out, len(feeds), error, out.stat().st_size, path.stat().st_size)


def write_int8(path: Path, feeds: Sequence[Sequence[Array]], out: Path) -> None:
    """Quantize an ONNX file on inputs, each a list of arrays in the file's order.

    Raises: ExtraError, without onnx or onnxruntime; FileError, where ONNX Runtime cannot quantize it.
    """
    onnxruntime = import_onnxruntime()
    import_extra("onnx", "onnx")
    names = [one.name for one in onnxruntime.InferenceSession(str(path)).get_inputs()]
    rest = (dict(zip(names, arrays, strict=True)) for arrays in feeds)
    try:
        with silenced(), tempfile.TemporaryDirectory() as folder:
            quantization = importlib.import_module("onnxruntime.quantization")
            shapes = importlib.import_module("onnxruntime.quantization.shape_inference")

            class Reader(quantization.CalibrationDataReader):  # type: ignore[misc,name-defined]
                def get_next(self) -> dict[str, Any] | None:
                    return next(rest, None)

            folded = Path(folder) / "folded.onnx"
            shapes.quant_pre_process(str(path), str(folded), skip_symbolic_shape=True)
            quantization.quantize_static(
                str(folded),
                str(out),
                Reader(),
                quant_format=quantization.QuantFormat.QDQ,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
                per_channel=True,
            )
    except Exception as error:  # the quantizer raises whatever its graph code runs into
        said = one_line(error)
        if type(error).__name__ == "InvalidArgument":  # what a session says of its inputs
            raise CorankError(
                f"quantize: a batch does not fit {path.name} ({said}). Give batches of the shapes and dtypes "
                "that it was exported with."
            ) from error
        raise FileError(
            f"{path.name}: ONNX Runtime cannot quantize it to int8 ({said}). Use it in f32."
        ) from error


def _require_float(path: Path) -> None:
    onnx = import_extra("onnx", "onnx")
    nodes = onnx.load(str(path), load_external_data=False).graph.node
    if any(one.op_type in ("QuantizeLinear", "DequantizeLinear") for one in nodes):
        raise FileError(f"{path}: it is in int8 already. Quantize the float32 file that corank.export wrote.")


def _arrays(batch: Any, names: Sequence[str], path: Path) -> list[Array]:
    inputs = batch[0] if isinstance(batch, list | tuple) else batch
    found = arrange(names, (inputs,), {}, path)
    for name, one in zip(names, found, strict=True):
        if not one.size or (one.dtype.kind == "f" and not np.isfinite(one).all()):
            wrong = "has values that are not finite" if one.size else "is empty"
            raise CorankError(f"quantize: {name} of a batch {wrong}. Leave that batch out.")
    return found
