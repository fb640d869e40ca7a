"""On what something was measured, and holding torch to the same terms as the other engines."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import torch

T = TypeVar("T")

PACKAGES = ("torch", "numpy", "onnx", "onnxscript", "onnxruntime", "openvino")
_FLAGS = ("avx", "avx2", "fma", "f16c", "avx_vnni", "amx", "avx512", "neon", "asimd", "sve", "bf16", "i8mm")


def describe_machine() -> dict[str, Any]:
    """Describe this machine: processor, memory, system and versions; no host or user name.

    Returns: a dict that survives JSON; a value that cannot be read is None.

    >>> describe_machine()["versions"]["torch"] == str(torch.__version__)
    True
    """
    info = _cpuinfo()
    flags = (info.get("flags") or info.get("Features") or "").split()
    return {
        "cpu": info.get("model name") or platform.processor() or platform.machine(),
        "cores": _physical_cores(),
        "threads": os.cpu_count(),
        "usable_threads": usable_threads(),
        "flags": sorted(flag for flag in flags if flag.startswith(_FLAGS)),
        "torch_capability": torch.backends.cpu.get_cpu_capability(),
        "virtual": "hypervisor" in flags,
        "ram_bytes": _ram_bytes(),
        "os": platform.platform(),
        "python": platform.python_version(),
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """Return the versions of the packages present that a measurement depends on."""
    found = {}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return {**found, "torch": str(torch.__version__)}


def usable_threads() -> int:
    """Return how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextlib.contextmanager
def pinned(threads: int) -> Iterator[None]:
    """Hold torch to a number of threads and to true float32, and give it back as it was.

    `torch.set_float32_matmul_precision("medium")` lets matrix products and convolutions run in bfloat16 on
    processors that have it, and so does autocast.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with _true_float32(), torch.autocast("cpu", enabled=False):
            yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def _true_float32() -> Iterator[None]:
    # Torch has old switches for all devices and newer ones a device. Each is set, so that they agree:
    # torch raises an error when an old one is read while they differ.
    cpu, cuda = torch.backends.mkldnn.matmul, torch.backends.cuda.matmul  # type: ignore[attr-defined]
    cudnn = torch.backends.cudnn.conv, torch.backends.cudnn.rnn  # type: ignore[attr-defined]
    switches = cpu, cuda, *cudnn
    before = [one.fp32_precision for one in switches]
    old, old_cudnn = _read(torch.get_float32_matmul_precision), _read(lambda: torch.backends.cudnn.allow_tf32)
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    cpu.fp32_precision = "ieee"
    try:
        yield
    finally:
        if old is not None:
            torch.set_float32_matmul_precision(old)
        if old_cudnn is not None:
            torch.backends.cudnn.allow_tf32 = old_cudnn
        for one, precision in zip(switches, before, strict=True):
            one.fp32_precision = precision


def _read(switch: Callable[[], T]) -> T | None:
    try:
        return switch()
    except RuntimeError:  # the newer ones differ
        return None


def _cpuinfo() -> dict[str, str]:
    try:
        lines = Path("/proc/cpuinfo").read_text().partition("\n\n")[0].splitlines()
    except OSError:
        return {}
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}


def _physical_cores() -> int | None:
    cores = set()
    for topology in Path("/sys/devices/system/cpu").glob("cpu[0-9]*/topology"):
        with contextlib.suppress(OSError):
            cores.add(tuple((topology / part).read_text() for part in ("physical_package_id", "core_id")))
    return len(cores) or None


def _ram_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None
