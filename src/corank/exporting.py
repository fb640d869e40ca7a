"""Writing a network to a file that other engines run, checked against torch before it gets its name."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from corank.engines import silenced
from corank.errors import CorankError, FileError
from corank.formats import FIXED_BATCH, WRITERS, Written, map_tensors, trace
from corank.inputs import Example, call, first_tensor, tensors
from corank.probing import unchanged

_TINY = 1e-30


class _Failure(FileError):
    """One attempt to export that failed, with the reason alone as well."""

    def __init__(self, where: str, reason: str, advice: str) -> None:
        super().__init__(f"{where}: {reason}. Nothing was written. {advice}")
        self.reason = reason


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What was written, and how far it is from the model.

    `error` is the largest difference of an output divided by the largest magnitude of that output,
    over all outputs and all the batch sizes checked.
    """

    path: Path
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    dynamic_batch: bool
    batch_sizes: tuple[int, ...]
    error: float
    tolerance: float
    size: int  # bytes, of all the files written
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        batch = "any batch size" if self.dynamic_batch else f"batch size {self.batch_sizes[0]} only"
        sizes = ", ".join(map(str, self.batch_sizes))
        lines = [
            f"{self.path}: {self.size / 1e6:.2f} MB, {batch}",
            f"inputs: {', '.join(self.inputs)}; outputs: {', '.join(self.outputs)}",
            f"checked against torch at batch {sizes}: "
            f"relative error {self.error:.1e}, allowed {self.tolerance:.1e}",
        ]
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])


def export(
    model: nn.Module,
    example: Example,
    path: str | os.PathLike[str],
    *,
    dynamic_batch: bool = True,
    batch_sizes: Sequence[int] = (1, 3),
    tolerance: float = 1e-4,
) -> ExportReport:
    """Write a network to a file for another engine, and keep the file only if it computes the same.

    The suffix decides: `.onnx` (run by ONNX Runtime for the check), `.xml` with its `.bin` (OpenVINO IR,
    run by OpenVINO in float32), `.pt2` (torch.export; the program is checked as it is written, because a
    file of that kind may hold a pickle, which corank never reads), `.pte` (ExecuTorch with XNNPACK, run by
    its runtime, at the batch size of the example).
    An output y' passes if max |y' − y| ≤ tolerance · max |y|, for every output and at every batch size.
    It is checked on the example, and on batches of its rows with every second one reversed along its last
    axis, so that a value of the example that was baked in shows. Files appear under their names in one step,
    or not at all.

    Args:
        model: any network; exported in eval mode, and given back in the mode it was in.
        example: one input; every tensor whose first dimension is that of the first tensor is a batch.
        path: where to write; a missing folder is made.
        dynamic_batch: let the file take any batch size. A network that cannot gets a static one, with a note.
        batch_sizes: at which the file is checked besides the example's; a static one only at that.
        tolerance: the largest relative error allowed.
    Returns: an ExportReport.
    Raises: FileError, when the network cannot be exported, or the file computes something else; ExtraError,
        where the package that writes or runs such a file is not installed.

    >>> with tempfile.TemporaryDirectory() as folder:
    ...     report = export(nn.Linear(4, 2), torch.ones(2, 4), f"{folder}/small.pt2")
    >>> report.dynamic_batch, report.batch_sizes, report.error <= 1e-4
    (True, (1, 2, 3), True)
    """
    path = Path(path)
    _reject_unusable(path)
    sizes = tuple(dict.fromkeys(batch_sizes))
    if dynamic_batch and (len(sizes) < 2 or min(sizes) < 1):
        raise CorankError(f"batch_sizes: needs two different sizes of at least 1, got {tuple(batch_sizes)}.")
    own = first_tensor(example).shape[0] if first_tensor(example).dim() else 1
    notes: tuple[str, ...] = ()
    if dynamic_batch and path.suffix in FIXED_BATCH:
        notes = (f"the batch size is fixed at {own}: {FIXED_BATCH[path.suffix]}",)
    with unchanged(model), torch.no_grad(), _no_fast_path(), _folder_beside(path) as folder:
        model.eval()
        draft, done = folder / path.name, None
        if dynamic_batch and not notes:
            try:
                traced = resize_batch(example, max(own, 2))  # torch.export takes a size of 1 for a constant
                checks = [example, *(resize_batch(example, size) for size in sizes)]
                done = _attempt(model, traced, draft, checks, tolerance, dynamic_batch=True)
                sizes = tuple(sorted({own, *sizes}))
            except _Failure as failure:
                notes = (f"the batch size is fixed at {own}: for any size, {failure.reason}",)
        if done is None:
            sizes, checks = (own,), [example, resize_batch(example, own, turn=0)]
            done = _attempt(model, example, draft, checks, tolerance, dynamic_batch=False)
        files = sorted(folder.iterdir(), key=lambda file: file == draft)  # the one with the name comes last
        size = sum(file.stat().st_size for file in files)
        try:
            for file in files:
                file.replace(path.parent / file.name)
        except OSError as error:
            raise FileError(f"{path}: could not be put in place ({error}). Choose another name.") from error
    written, worst = done
    dynamic = dynamic_batch and not notes
    return ExportReport(path, written.inputs, written.outputs, dynamic, sizes, worst, tolerance, size, notes)


def resize_batch(example: Example, size: int, *, turn: int = 1) -> Example:
    """Repeat or cut the rows of an example to a batch of another size.

    Every second row, starting with row `turn`, is reversed along its last axis: other values, of the same
    kind. Tensors without the example's batch dimension are kept.

    >>> resize_batch(torch.tensor([[1, 2]]), 3).tolist()
    [[1, 2], [2, 1], [1, 2]]
    """
    first = first_tensor(example)

    def resize(tensor: Tensor) -> Tensor:
        if tensor.dim() == 0 or tensor.shape[0] != first.shape[0]:
            return tensor
        rows = torch.arange(size, device=tensor.device) % tensor.shape[0]
        batch = tensor.detach().index_select(0, rows)
        if batch.dim() > 1:
            batch[turn::2] = batch[turn::2].flip(-1)
        return batch

    resized: Example = map_tensors(example, resize) if first.dim() else example
    return resized


def _attempt(
    model: nn.Module,
    example: Example,
    draft: Path,
    checks: Sequence[Example],
    tolerance: float,
    *,
    dynamic_batch: bool,
) -> tuple[Written, float]:
    """Trace a network, write a draft, and compare it on every check; give also the largest error."""
    expected = [_outputs(model, check, draft.name) for check in checks]
    try:
        with silenced():
            written = WRITERS[draft.suffix](trace(model, example, dynamic_batch=dynamic_batch), draft)
    except CorankError:
        raise
    except Exception as error:  # torch, onnxscript and OpenVINO raise dozens of kinds
        raise _Failure(
            draft.name,
            f"the network cannot be exported ({_root(error)})",
            "Replace what the message names by operations on tensors, or look at torch.export.export(model).",
        ) from error
    pairs = zip(checks, expected, strict=True)
    return written, max(_compare(model, written, draft.name, *pair, tolerance) for pair in pairs)


def _compare(
    model: nn.Module, written: Written, file: str, example: Example, expected: list[Tensor], tolerance: float
) -> float:
    where = f"{file}, batch {_batch(example)}"
    try:
        with silenced():
            got = written.run(example)
    except Exception as error:
        advice = "Give an example of float32 and integer tensors of the shapes used in production."
        raise _Failure(where, f"the exported file does not run ({_root(error)})", advice) from error
    if len(got) != len(expected):
        counts = f"the file has {len(got)} outputs, the model {len(expected)}"
        raise _Failure(where, counts, "Return each tensor once.")
    worst = 0.0
    for index, (ours, theirs) in enumerate(zip(expected, got, strict=True)):
        difference = relative_error(ours, theirs)
        worst = max(worst, difference)
        if not difference <= tolerance:
            reason = (
                f"output {index} ({written.outputs[index]}) differs from the model by {difference:.1e} "
                f"of its scale, allowed {tolerance:.1e}"
            )
            raise _Failure(where, reason, _advice(model, example, expected))
    return worst


def relative_error(expected: Tensor, got: Tensor) -> float:
    """Return max |got − expected| / max |expected|; infinite where shapes, infinities or NaN disagree.

    >>> round(relative_error(torch.tensor([1.0, 4.0]), torch.tensor([1.0, 3.0])), 3)
    0.25
    """
    if expected.shape != got.shape:
        return float("inf")
    ours, theirs = expected.cpu().to(torch.float64), got.cpu().to(torch.float64)
    other = (ours != theirs) & ~(ours.isnan() & theirs.isnan())
    if not bool(other.any()):
        return 0.0
    finite = ours[ours.isfinite()].abs()
    scale = float(finite.max()) if finite.numel() else 0.0
    difference = float((ours - theirs)[other].abs().max())
    return difference / max(scale, _TINY) if difference == difference else float("inf")


def _outputs(model: nn.Module, example: Example, file: str) -> list[Tensor]:
    try:
        with silenced():
            return [output.detach().clone() for output in tensors(call(model, example))]
    except Exception as error:
        reason = f"the model itself does not run at batch {_batch(example)} ({_root(error)})"
        raise _Failure(file, reason, "Give an example that it accepts.") from error


def _advice(model: nn.Module, example: Example, expected: list[Tensor]) -> str:
    again = tensors(call(model, example))
    if all(relative_error(a, b) == 0.0 for a, b in zip(again, expected, strict=True)):
        return (
            "Look for a value that depends on the data or the batch size; raise `tolerance` if you accept it."
        )
    return "The model itself gives another output each time: take the randomness out of its eval mode."


def _batch(example: Example) -> int:
    first = first_tensor(example)
    return first.shape[0] if first.dim() else 1


def _reject_unusable(path: Path) -> None:
    if path.suffix not in WRITERS:
        allowed = ", ".join(WRITERS)
        raise FileError(f"{path}: allowed suffixes are {allowed}; got {path.suffix!r}. Rename the file.")
    if path.is_dir():
        raise FileError(f"{path}: is a folder. Give the name of a file.")


@contextlib.contextmanager
def _no_fast_path() -> Iterator[None]:
    """Keep transformer layers from torch's fast path: it zeroes padded positions, a traced graph does not."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


@contextlib.contextmanager
def _folder_beside(path: Path) -> Iterator[Path]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(prefix=".corank-", dir=path.parent)
    except OSError as error:
        raise FileError(f"{path}: its folder cannot be written ({error}). Choose another one.") from error
    with folder as name:
        yield Path(name)


def _root(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines() or ["no message"]
    # OpenVINO begins with the places in its source that an error came through
    said = lines[-1] if lines[0].startswith("Exception from") else lines[0]
    return f"{type(error).__name__}: {said.strip()}"
