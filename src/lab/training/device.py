"""Which device a run takes, and where bfloat16 gains."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch

from lab.utils.errors import LabError


def pick_device(name: str) -> torch.device:
    """``"cpu"``, ``"cuda"``, ``"cuda:1"``: a device that is there, or one line that says what is."""
    try:
        device = torch.device(name)
    except RuntimeError:
        raise LabError(f"unknown device {name!r}: choose cpu or cuda") from None
    if device.type == "cuda":
        count = torch.cuda.device_count()
        if (device.index or 0) >= count:
            raise LabError(f"device {name!r} is not there: PyTorch sees {count} CUDA devices; choose cpu")
    elif device.type != "cpu":
        raise LabError(f"device {name!r} is not supported: choose cpu or cuda")
    return device


def gains_from_bf16(device: torch.device) -> bool:
    """True where matrix units make bfloat16 faster: CUDA from Ampere on, CPUs with AMX or AVX-512 BF16.

    Of a CPU only what PyTorch uses counts: ``ATEN_CPU_CAPABILITY=default`` makes it compute as one without.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if torch.backends.cpu.get_cpu_capability() in ("DEFAULT", "AVX2"):
        return False
    probes = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return any(getattr(torch.cpu, probe, bool)() for probe in probes)


def autocast(device: torch.device) -> AbstractContextManager[Any]:
    """Mixed precision where the device gains by it, else nothing."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=gains_from_bf16(device))
