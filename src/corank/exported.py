"""An exported file as a module, so that what will ship is evaluated and timed like any network."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from corank.engines import Array, Session, open_onnxruntime, open_openvino
from corank.errors import CorankError, FileError
from corank.inputs import tensors

_SUFFIXES = {"onnxruntime": (".onnx",), "openvino": (".onnx", ".xml")}


class Exported(nn.Module):
    """A file in its engine, called like the network that it was made of; it has no weights to train.

    `open_exported` makes it.

    >>> import tempfile, torch
    >>> from corank.exporting import export
    >>> from corank.exported import open_exported
    >>> net, x = nn.Linear(4, 2), torch.ones(2, 4)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     fast = open_exported(export(net, x, f"{folder}/net.onnx").path)
    ...     torch.allclose(fast(x), net(x), atol=1e-5)
    True
    """

    path: Path
    backend: str
    sparse_rate: float | None

    def __init__(self, path: Path, backend: str, session: Session, sparse_rate: float | None = None) -> None:
        super().__init__()
        self.path, self.backend, self.sparse_rate = path, backend, sparse_rate
        self._session = session
        self.eval()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the engine on the tensors of a call; one output is a tensor, several are a tuple.

        Raises: CorankError, for inputs that the file does not take.
        """
        outputs: tuple[Tensor, ...] = tuple(
            torch.from_numpy(one) for one in self.run(arrange(self.inputs, args, kwargs, self.path))
        )
        return outputs[0] if len(outputs) == 1 else outputs

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names of the file's inputs, in its order."""
        return self._session.inputs

    def run(self, arrays: Sequence[Array]) -> list[Array]:
        """Run the engine on one array an input, in the file's order.

        Raises: CorankError, for arrays that the file does not take.
        """
        try:
            return [one.copy() for one in self._session.bind(arrays)()]
        except Exception as error:  # each engine has its own kinds
            given = ", ".join(f"{one.dtype} {tuple(one.shape)}" for one in arrays)
            raise CorankError(
                f"{self.path.name}: {self.backend} does not run on {given} "
                f"({str(error).strip().partition(chr(10))[0][:200]}). Give inputs of the shapes and dtypes "
                "that it was exported with."
            ) from error


def arrange(names: Sequence[str], args: Sequence[Any], kwargs: Mapping[str, Any], path: Path) -> list[Array]:
    """Put the tensors of a call into the order of a file's inputs.

    Keywords, or a mapping that is all there is, are taken by name where they are names of inputs, and the
    others in order.

    Raises: CorankError, for another number of tensors, or bfloat16, which numpy does not have.

    >>> call = {"y": torch.ones(2), "x": torch.zeros(1)}
    >>> [one.shape for one in arrange(("x", "y"), (), call, Path("net.onnx"))]
    [(1,), (2,)]
    """
    if len(args) == 1 and not kwargs and isinstance(args[0], Mapping):
        kwargs, args = args[0], ()
    named = {key: one for key, one in kwargs.items() if isinstance(one, Tensor)}
    if not named.keys() <= set(names):
        named = {}
    rest = iter(tensors((args, {key: one for key, one in kwargs.items() if key not in named})))
    placed = [named[name] if name in named else next(rest, None) for name in names]
    found = [one for one in (*placed, *rest) if one is not None]
    if len(found) != len(names):
        raise CorankError(
            f"{path.name}: it takes {len(names)} inputs ({', '.join(names)}), got {len(found)} tensors. "
            "Give one for each; of a batch that is a tuple, the first item is the input."
        )
    for name, one in zip(names, found, strict=True):
        if one.dtype == torch.bfloat16:
            raise CorankError(f"{path.name}: {name} is torch.bfloat16, which no engine reads. Give float32.")
    return [one.detach().cpu().contiguous().numpy() for one in found]


def open_exported(
    path: str | os.PathLike[str],
    *,
    backend: str = "onnxruntime",
    threads: int | None = None,
    sparse_rate: float | None = None,
) -> Exported:
    """Open an exported file, in float32 or int8, as a module that any `evaluate`, and `bench`, takes.

    Args:
        path: .onnx, or .xml in OpenVINO.
        backend: `onnxruntime` or `openvino`.
        threads: torch's present number if None.
        sparse_rate: of OpenVINO alone: keep the int8 weights of a matrix product packed where at least this
            share of them is zero. It needs a processor with AMX; elsewhere it changes nothing.
    Returns: a module without parameters; give it batches of any size if the file takes them.
    Raises: FileError, for a file that is absent or that the engine cannot read; ExtraError, without the
        engine.

    >>> import tempfile
    >>> from corank.exporting import export
    >>> net, x = nn.Linear(4, 2), torch.ones(2, 4)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = export(net, x, f"{folder}/net.onnx")
    ...     torch.allclose(open_exported(f"{folder}/net.onnx")(x), net(x), atol=1e-6)
    True
    """
    path = Path(path)
    if backend not in _SUFFIXES:
        raise CorankError(f"backend: files are run by {', '.join(_SUFFIXES)}; got {backend!r}.")
    if path.suffix not in _SUFFIXES[backend]:
        allowed = " and ".join(_SUFFIXES[backend])
        raise FileError(f"{path}: {backend} reads {allowed}, got {path.suffix!r}. Export to one of these.")
    if sparse_rate is not None and (backend != "openvino" or not 0 <= sparse_rate <= 1):
        raise CorankError(
            f"sparse_rate: a fraction in [0, 1], in openvino alone; got {sparse_rate} in {backend}."
        )
    if not path.is_file():
        raise FileError(f"{path}: there is no such file. Write it by corank.export.")
    try:
        used = threads or torch.get_num_threads()
        if backend == "openvino":
            session = open_openvino(path, used, sparse_rate=sparse_rate)
        else:
            session = open_onnxruntime(path, used)
    except CorankError:
        raise
    except Exception as error:  # whatever the engine's reader raises
        raise FileError(
            f"{path}: {backend} cannot read it ({str(error).strip().partition(chr(10))[0][:200]})."
        ) from error
    return Exported(path, backend, session, sparse_rate)
