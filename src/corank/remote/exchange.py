"""Writing the files that a device far away times, and making the latency table from what it found.

All weights lie in one file that every candidate reads from its beginning, so that hundreds of candidates take
no more room than the largest.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from corank.benchmarks import timing
from corank.benchmarks.table_cache import Times
from corank.benchmarks.table_fill import MIN_TIME
from corank.benchmarks.table_measure import ratio_of, split_key
from corank.benchmarks.table_order import GROUP
from corank.benchmarks.table_ranks import Methods, RankChoice
from corank.benchmarks.table_rows import make_rows
from corank.benchmarks.table_runners import check_terms, save_chain
from corank.benchmarks.table_survey import Survey, Wanted, survey_model
from corank.benchmarks.table_units import build, make_input, read_unit
from corank.errors import CorankError, FileError
from corank.exporting import export
from corank.extras import import_extra
from corank.files import write_text
from corank.inputs import Example, first_tensor, tensors
from corank.latency import LatencyTable
from corank.layers import LAYER_TYPES, unwrap
from corank.methods import METHODS
from corank.probing import unchanged
from corank.targets import Target

SCHEMA = 1
_WEIGHTS = "weights.bin"
_SMALL = 4096  # bytes; smaller constants, such as those of a batch norm, stay in their file


def export_table(
    model: nn.Module,
    example: Example,
    folder: Path | str,
    *,
    methods: Methods = None,
    ranks: RankChoice = None,
    multiple: int | None = None,
    target: Target | None = None,
    rounds: int = 10,
    types: Collection[str] = LAYER_TYPES,
    include: Iterable[str] | None = None,
    exclude: Iterable[str] | None = None,
) -> Path:
    """Write what a latency table would time, as ONNX files with a runner that needs no torch.

    The folder holds the whole network, every dense layer and split with random weights, manifest.json and
    run_table.py, which needs numpy and onnxruntime (or openvino) and writes times.json.

    Args:
        model, example, methods, ranks, multiple, target, rounds, types, include, exclude: as in
            `corank.latency_table`.
        folder: where to write; it is made, and must be empty.
    Returns: the folder.
    Raises: CorankError, as `latency_table`; FileError, for a folder that is not empty.
    """
    folder, target = Path(folder), target or Target()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileError(f"{folder}: is not an empty folder. Choose another one.")
    check_terms(model, example, "onnxruntime", None)
    model = unwrap(model)
    wanted = Wanted(methods, ranks, target.multiple if multiple is None else multiple, target)
    survey = survey_model(model, example, wanted, types=types, include=include, exclude=exclude)
    folder.mkdir(parents=True, exist_ok=True)
    export(model, example, folder / "model.onnx", dynamic_batch=False)
    whole = [_input(tuple(one.shape), str(one.dtype)) for one in tensors(example)]
    groups: list[dict[str, Any]] = [{"files": ["model.onnx"], "inputs": [whole], "keys": ["whole"]}]
    with unchanged(model):
        largest = _write_candidates(survey, folder, groups)
    values = torch.randn(largest // 4 + 1, generator=torch.Generator().manual_seed(0)) / 20
    (folder / _WEIGHTS).write_bytes(values.numpy().tobytes())
    first = first_tensor(example)
    manifest = {
        "schema": SCHEMA,
        "rounds": rounds,
        "min_time": MIN_TIME,
        "batch": first.shape[0] if first.dim() else 1,
        "groups": groups,
        "calls": {name: dict(called) for name, called in survey.calls.items()},
        "layers": {name: {m: list(r) for m, r in some.items()} for name, some in survey.layers.items()},
        "skipped": dict(survey.skipped),
    }
    manifest["digest"] = hashlib.sha256(json.dumps(manifest).encode()).hexdigest()[:16]
    write_text(folder / "run_table.py", Path(__file__).with_name("run_table.py").read_text(encoding="utf-8"))
    write_text(folder / "manifest.json", json.dumps(manifest, indent=1))
    return folder


def _write_candidates(survey: Survey, folder: Path, groups: list[dict[str, Any]]) -> int:
    """Write every dense layer and split, name them in groups, and return the bytes of the largest weight."""
    generator = torch.Generator().manual_seed(0)
    largest = 0
    for number, (key, unit) in enumerate(survey.units.items()):
        x = make_input(unit, generator)
        chains: dict[str, nn.Sequential] = {}
        for method, ranks in survey.splits[key].items():
            for rank in ranks:
                chains[split_key(unit, (method, rank))] = METHODS[method].structure(unit.layer, rank)
        files = {
            "dense": f"{number}-dense.onnx",
            **{one: f"{number}-{i}.onnx" for i, one in enumerate(chains)},
        }
        for one, chain in {"dense": nn.Sequential(unit.layer), **chains}.items():
            save_chain(build(unit, chain, generator), x, folder / files[one])
            largest = max(largest, _share_weights(folder / files[one]))
        inputs = [_input(tuple(x.shape), str(x.dtype))]
        together = groups[0]  # the whole network takes turns with all its dense layers
        for name, value in (("files", files["dense"]), ("inputs", inputs), ("keys", key)):
            together[name].append(value)
        names = list(chains)
        for start in range(0, len(names), GROUP):
            taking_turns = ["dense", *names[start : start + GROUP]]
            groups.append(
                {
                    "unit": key,
                    "files": [files[one] for one in taking_turns],
                    "keys": taking_turns,
                    "inputs": [inputs] * len(taking_turns),
                }
            )
    return largest


def _share_weights(path: Path) -> int:
    """Point a file's large weights at the beginning of the shared file; return the bytes of the largest."""
    onnx = import_extra("onnx", "onnx")
    model = onnx.load(str(path))
    largest = 0
    for one in model.graph.initializer:
        size = len(one.raw_data)
        if size > _SMALL and one.data_type == onnx.TensorProto.FLOAT:
            onnx.external_data_helper.set_external_data(one, _WEIGHTS, offset=0, length=size)
            one.ClearField("raw_data")
            largest = max(largest, size)
    path.write_bytes(model.SerializeToString())
    return largest


def _input(shape: tuple[int, ...], dtype: str) -> dict[str, Any]:
    return {"shape": list(shape), "dtype": dtype.removeprefix("torch.")}


def import_table(folder: Path | str, seed: int = 0) -> LatencyTable:
    """Make the latency table from a folder that a device has timed.

    Args:
        folder: what `export_table` wrote, with the device's times.json in it.
        seed: of the intervals.
    Raises: FileError, for a folder in which the times are missing, incomplete or of other files.
    """
    folder = Path(folder)
    manifest, found = _read(folder / "manifest.json"), _read(folder / "times.json")
    try:
        if found["manifest"] != manifest["digest"]:
            raise FileError(f"{folder}: times.json was made for other files. Run run_table.py again.")
        groups, terms = manifest["groups"], found["terms"]
        left = [number for number in range(len(groups)) if str(number) not in found["groups"]]
        if left:
            raise FileError(
                f"{folder}: {len(left)} of {len(groups)} groups were not timed. Run run_table.py again; "
                "it goes on where it stopped."
            )
        times, dense, whole_s = Times({}), {}, 0.0
        unsteady = []
        for number, group in enumerate(groups):
            timed = found["groups"][str(number)]
            taken = {
                key: np.array(some) * (1 - edge)
                for key, some, edge in zip(group["keys"], timed["times"], timed["edges"], strict=True)
            }
            reference = taken.pop(group["keys"][0])
            if timing.drift(reference) is not None:
                unsteady.append(group.get("unit", "whole"))
            if "unit" in group:
                times.ratios.setdefault(group["unit"], {}).update(
                    {key: ratio_of(seconds, reference, seed) for key, seconds in taken.items()}
                )
            else:
                whole_s = float(np.median(reference))
                dense = {key: whole_s * float(np.median(own / reference)) for key, own in taken.items()}
        units = {key: read_unit(key) for key in dense}
        names = [name for name, called in manifest["calls"].items() if any(key in unsteady for key in called)]
        return LatencyTable(
            backend=terms["backend"],
            threads=terms["threads"],
            precision="float32",
            batch=manifest["batch"],
            whole_ms=whole_s * 1e3,
            rows=make_rows(manifest["layers"], manifest["calls"], units, dense, times),
            skipped=manifest["skipped"],
            machine=terms["machine"],
            versions={terms["backend"]: terms["version"]},
            notes=(f"the device was not steady while these were timed: {', '.join(names)}",) if names else (),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise FileError(
            f"{folder}: manifest.json or times.json is not what corank and run_table.py write "
            f"({type(error).__name__}: {error})."
        ) from error


def _read(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values["schema"] != SCHEMA:
            raise CorankError(f"{path}: this corank reads schema {SCHEMA}, got {values['schema']!r}.")
    except OSError as error:
        raise FileError(
            f"{path}: cannot be read ({error.strerror}). Run run_table.py in the folder first."
        ) from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise FileError(
            f"{path}: is not what was written there ({type(error).__name__}: {error})."
        ) from error
    else:
        return dict(values)
