"""The GPUs of this machine"""

from __future__ import annotations

import torch


def gpus() -> list[tuple[str, int]]:
    """Return the name and the bytes of memory of every GPU that torch can use."""
    if not torch.cuda.is_available():
        return []
    found = (torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count()))
    return [(device.name, device.total_memory) for device in found]
