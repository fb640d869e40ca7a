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

import torch

from corank.engines import Array, Session, import_onnxruntime, open_onnxruntime, silenced
from corank.errors import CorankError, FileError
from corank.exporting import relative_error
from corank.extras import import_extra
from corank.files import replacing
from corank.inputs import tensors


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
        batches: what the network will see, as for `calibrate`: of a tuple the first item is the input.
        out: the file to write.
        max_batches: of `batches`, take so many.
    Returns: a Quantized.
    Raises: FileError, for a file that is absent or no ONNX, or that ONNX Runtime cannot quantize;
        CorankError, for no batch, or one that does not fit the file's inputs; ExtraError, without onnx or
        onnxruntime.

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
    feeds = [_arrays(batch) for batch in islice(batches, max_batches)]
    if not feeds:
        raise CorankError("quantize: there is no batch. Give a loader, or a list, with at least one.")
    dense = open_onnxruntime(path, torch.get_num_threads())
    names = dense.inputs
    for feed in feeds:
        if len(feed) != len(names):
            raise CorankError(
                f"quantize: {path.name} takes {len(names)} inputs ({', '.join(names)}), a batch has "
                f"{len(feed)}. Of a tuple the first item is the input."
            )
    with replacing(out) as draft:
        write_int8(path, feeds, draft)
        small = open_onnxruntime(draft, torch.get_num_threads())
        error = max(
            relative_error(torch.from_numpy(a), torch.from_numpy(b))
            for a, b in zip(_run(dense, feeds[0]), _run(small, feeds[0]), strict=True)
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
        raise FileError(
            f"{path.name}: ONNX Runtime cannot quantize it to int8 ({type(error).__name__}: "
            f"{str(error).strip().partition(chr(10))[0]}). Use it in f32."
        ) from error


def _arrays(batch: Any) -> list[Array]:
    inputs = batch[0] if isinstance(batch, list | tuple) else batch
    return [one.detach().cpu().contiguous().numpy() for one in tensors(inputs)]


def _run(session: Session, arrays: Sequence[Array]) -> list[Array]:
    return [one.copy() for one in session.bind(arrays)()]
