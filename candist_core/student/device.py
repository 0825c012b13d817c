"""Where the student computes: chosen once, with a sentence saying why.

The only place that asks which devices there are. The sentence goes to the log and into the manifest.
"""

from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch

from candist_core.errors import StudentError


@dataclass(frozen=True, slots=True)
class Device:
    """A device's name for torch, the type its matrix products use, and the reason for both."""

    name: str
    dtype: torch.dtype
    why: str

    def autocast(self) -> AbstractContextManager[object]:
        """Matrix products in `dtype`; weights and losses stay float32."""
        kind = self.name.partition(":")[0]
        return torch.autocast(kind, dtype=torch.bfloat16, enabled=self.dtype is torch.bfloat16)


def choose_device(asked: str = "auto") -> Device:
    """Find the device to use.

    `auto` is CUDA where there is one and the CPU elsewhere. bfloat16 is used where the hardware multiplies it;
    a CPU that emulates it is slower than in float32.

    Args:
        asked: auto, cpu, mps, cuda or cuda with a number.

    Raises:
        StudentError: the device asked for is not in this machine.

    Example:
        >>> choose_device("cpu").name
        'cpu'
    """
    if asked == "cpu":
        return _cpu("asked for")
    if asked == "auto":
        return _cuda("cuda", "found") if torch.cuda.is_available() else _cpu("no CUDA device found")
    if asked == "mps" and torch.backends.mps.is_available():
        return Device("mps", torch.float32, "mps asked for; float32")
    if asked.startswith("cuda") and int(asked.partition(":")[2] or 0) < torch.cuda.device_count():
        return _cuda(asked, "asked for")
    raise StudentError(
        "student.device", f"{asked!r}, which is not in this machine", _present(), "set student.device to auto"
    )


def _cpu(reason: str) -> Device:
    capabilities = torch.cpu.get_capabilities()
    if capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"):
        return Device("cpu", torch.bfloat16, f"cpu, {reason}; bfloat16, which this CPU multiplies in hardware")
    return Device("cpu", torch.float32, f"cpu, {reason}; float32, this CPU has no bfloat16 products")


def _cuda(name: str, reason: str) -> Device:
    model = torch.cuda.get_device_name(name)
    if torch.cuda.is_bf16_supported(including_emulation=False):
        return Device(name, torch.bfloat16, f"{name}, {reason} ({model}); bfloat16")
    return Device(name, torch.float32, f"{name}, {reason} ({model}); float32, it has no bfloat16 products")


def _present() -> str:
    names = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    if torch.backends.mps.is_available():
        names.append("mps")
    return "one of " + ", ".join(names)
