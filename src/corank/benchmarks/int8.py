"""An exported file in int8, for a latency table: what it costs in time, not what it costs in accuracy."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from corank.engines import Array, import_onnxruntime, silenced
from corank.errors import FileError
from corank.extras import import_extra


def quantize(path: Path, arrays: Sequence[Array], folder: Path) -> Path:
    """Quantize an ONNX file to int8 and return the new one.

    Static, as quantize and dequantize pairs, uint8 maps and int8 weights with a scale a filter: what ONNX
    Runtime and OpenVINO both turn into their int8 kernels. Batch norms are folded first. The ranges come
    from the one input that is given: enough to time it, too little to ship it.

    Args:
        path: a float32 ONNX file.
        arrays: its inputs, in order.
        folder: for the new file.
    Raises: ExtraError, without onnx or onnxruntime; FileError, where ONNX Runtime cannot quantize it.
    """
    onnxruntime = import_onnxruntime()
    import_extra("onnx", "onnx")
    names = [one.name for one in onnxruntime.InferenceSession(str(path)).get_inputs()]
    feeds = iter([dict(zip(names, arrays, strict=True))])
    out = folder / f"{path.stem}-int8.onnx"
    try:
        with silenced():
            quantization = importlib.import_module("onnxruntime.quantization")
            shapes = importlib.import_module("onnxruntime.quantization.shape_inference")

            class Once(quantization.CalibrationDataReader):  # type: ignore[misc,name-defined]
                def get_next(self) -> dict[str, Any] | None:
                    return next(feeds, None)

            folded = folder / f"{path.stem}-folded.onnx"
            shapes.quant_pre_process(str(path), str(folded), skip_symbolic_shape=True)
            quantization.quantize_static(
                str(folded),
                str(out),
                Once(),
                quant_format=quantization.QuantFormat.QDQ,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
                per_channel=True,
            )
    except Exception as error:  # the quantizer raises whatever its graph code runs into
        raise FileError(
            f"{path.name}: ONNX Runtime cannot quantize it to int8 ({type(error).__name__}: "
            f"{str(error).strip().partition(chr(10))[0]}). Time it in f32."
        ) from error
    return out
