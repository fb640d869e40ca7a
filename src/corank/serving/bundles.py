"""A model to serve, as a folder with its checksum: what is rolled out is what can be rolled back to."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from corank.errors import CorankError, FileError
from corank.extras import import_extra
from corank.files import replacing, write_text
from corank.rollout.casting import DTYPES, cast
from corank.serving.onnx_files import input_dtype

if TYPE_CHECKING:
    from torch import nn

_MANIFEST = "bundle.json"
_SCHEMA = 1
FORMATS = {".safetensors": "safetensors", ".onnx": "onnx"}


@dataclass(frozen=True, slots=True)
class Bundle:
    """What stands in a bundle's manifest, and where it lies.

    Args:
        folder: where the manifest and the model's file are.
        file: the model's file in it.
        format: safetensors or onnx.
        factory: package.module:factory, which makes the network that safetensors are loaded into.
        shape: of an input, whose first size is free; None takes any.
        sha256: of the model's file.
        dtype: of an input, which others are cast to; None, in bundles of older versions, takes any.
    """

    folder: Path
    file: str
    format: str
    factory: str | None
    shape: tuple[int, ...] | None
    sha256: str
    dtype: str | None = None

    @property
    def digest(self) -> str:
        """The checksum over all that the manifest says, the file's included."""
        return hashlib.sha256(json.dumps(self.values(), sort_keys=True).encode()).hexdigest()

    def values(self) -> dict[str, Any]:
        """Return what stands in the manifest; an older one says nothing of dtype."""
        values = asdict(self)
        del values["folder"]
        return values if self.dtype is not None else {k: v for k, v in values.items() if k != "dtype"}


def write_bundle(
    folder: Path | str,
    model: Path | str,
    *,
    factory: str | None = None,
    shape: tuple[int, ...] | None = None,
    dtype: str | None = None,
) -> Bundle:
    """Copy a model's file into a folder, with its checksum.

    Args:
        folder: made if it is not there.
        model: a .safetensors or .onnx file; an .onnx file must hold its weights.
        factory: package.module:factory, for safetensors.
        shape: of an input, batch first.
        dtype: of an input; default: float32 for safetensors, what its input says for ONNX.
    Raises: CorankError, for another kind of file, or safetensors without a factory; FileError, for a file
        that is absent or cannot be loaded, or a folder that cannot be written or holds a bundle.
    """
    model = Path(model)
    checked = check_file(folder, model, factory=factory, shape=shape, dtype=dtype)
    with replacing(Path(folder) / model.name) as temporary:
        shutil.copyfile(model, temporary)
        if checked.format == "onnx":
            _onnx(temporary, checked.dtype)  # the copy itself: what it needs besides is not with it
    bundle = replace(checked, folder=Path(folder), sha256=_checksum(Path(folder) / model.name))
    text = json.dumps({"schema": _SCHEMA, **bundle.values(), "digest": bundle.digest}, indent=1)
    write_text(bundle.folder / _MANIFEST, text)
    return bundle


def check_file(
    folder: Path | str,
    model: Path | str,
    *,
    factory: str | None = None,
    shape: tuple[int, ...] | None = None,
    dtype: str | None = None,
) -> Bundle:
    """Return the bundle that a model's file would make, as it lies now; nothing is written.

    Args and Raises: as of `write_bundle`.
    """
    folder, model = Path(folder), Path(model)
    kind = FORMATS.get(model.suffix)
    if kind is None:
        raise CorankError(f"bundle: allowed are .safetensors and .onnx files, got {model.name!r}.")
    if kind == "safetensors" and not factory:
        raise CorankError(f"bundle: {model.name} needs its network. Give --model package.module:factory.")
    if not model.is_file():
        raise FileError(f"{model}: there is no such file.")
    if (folder / _MANIFEST).exists():
        raise FileError(f"{folder}: holds a bundle, which must not change. Choose another folder.")
    if dtype is not None and dtype not in DTYPES:
        raise CorankError(f"bundle: dtype: allowed are {', '.join(DTYPES)}, got {dtype!r}.")
    if kind == "safetensors":
        return Bundle(model.parent, model.name, kind, factory, shape, _checksum(model), dtype or "float32")
    found = input_dtype(model)
    if dtype not in (None, found):
        raise CorankError(f"bundle: {model.name} takes {found}, got dtype {dtype!r}. Leave it out.")
    return Bundle(model.parent, model.name, kind, None, shape, _checksum(model), found)


def read_bundle(folder: Path | str) -> Bundle:
    """Read a bundle and check every byte of it.

    Raises: FileError, when it is absent, damaged, or not what its checksum says.
    """
    folder = Path(folder)
    manifest = folder / _MANIFEST
    try:
        values = json.loads(manifest.read_text(encoding="utf-8"))
        if values.pop("schema") != _SCHEMA:
            raise FileError(f"{manifest}: this corank reads schema {_SCHEMA}. Upgrade corank.")
        digest = values.pop("digest")
        shape = values.pop("shape")
        bundle = Bundle(folder, **values, shape=None if shape is None else tuple(shape))
        if bundle.file in ("", ".", "..") or Path(bundle.file).name != bundle.file:
            raise FileError(f"{manifest}: file is a plain name in this folder, got {bundle.file[:100]!r}.")
        if bundle.dtype is not None and bundle.dtype not in DTYPES:
            raise FileError(f"{manifest}: dtype: allowed are {', '.join(DTYPES)}, got {bundle.dtype!r}.")
        path = folder / bundle.file
        found = _checksum(path)
    except OSError as error:
        raise FileError(
            f"{error.filename}: cannot be read ({error.strerror}). Make a bundle: corank bundle."
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FileError(f"{manifest}: is no bundle ({type(error).__name__}: {error}).") from error
    if bundle.digest != digest:
        raise FileError(f"{manifest}: it was changed after it was made. Make the bundle again.")
    if found != bundle.sha256:
        raise FileError(f"{path}: its checksum is not the bundle's, so it is another file or damaged.")
    return bundle


def load_bundle(bundle: Bundle, factory: Callable[[], nn.Module] | None = None) -> Callable[[Any], Any]:
    """Return what takes an array and gives an array, on the processor; inputs are cast to the bundle's dtype.

    Args:
        bundle: as it was read.
        factory: makes the network, for safetensors.
    Raises: FileError, for a file that does not fit; ExtraError, without onnxruntime.
    """
    path = bundle.folder / bundle.file
    if bundle.format == "onnx":
        return _onnx(path, bundle.dtype)
    if factory is None:
        raise CorankError(f"{path}: safetensors need the network's factory, {bundle.factory}.")
    return _torch(path, factory, bundle.dtype)


def _torch(path: Path, factory: Callable[[], nn.Module], dtype: str | None) -> Callable[[Any], Any]:
    import torch

    from corank.inputs import first_tensor
    from corank.weights import load_weights

    model = load_weights(factory, path).eval()

    def run(inputs: Any) -> Any:
        with torch.inference_mode():
            return first_tensor(model(torch.from_numpy(cast(inputs, dtype)))).numpy()

    return run


def _onnx(path: Path, dtype: str | None) -> Callable[[Any], Any]:
    runtime = import_extra("onnxruntime", "onnx")
    try:
        session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has its own kinds
        raise FileError(f"{path}: onnxruntime cannot load it ({str(error)[:200]}).") from error
    name = session.get_inputs()[0].name

    def run(inputs: Any) -> Any:
        return session.run(None, {name: cast(inputs, dtype)})[0]

    return run


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
