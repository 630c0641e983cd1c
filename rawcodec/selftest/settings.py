"""The ways to run the decoder, all of which must give the same samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

BANDS: Final = (20, 300, 1 << 20)
"""Rows at a time: few; more, and not what the product takes; all."""

VARIABLES: Final = ("OMP_NUM_THREADS", "ONEDNN_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY")
"""Variables of the environment that settings set."""


@dataclass(frozen=True)
class Setting:
    """A way to run the decoder.

    environment: variables, and their values. options: of :mod:`.configured`. device: as decode
    has it.
    """

    name: str
    environment: tuple[tuple[str, str], ...] = ()
    options: tuple[str, ...] = ()
    device: str = "cpu"

    @property
    def how(self) -> str:
        """What to set to do the same."""
        words = [f"`{name}={value}`" for name, value in self.environment]
        if self.options:
            words.append(f"`{' '.join(self.options)}`")
        if self.device != "cpu":
            words.append(f"`--device {self.device}`")
        return " ".join(words)


DEFAULT: Final = Setting("default")
CUDA: Final = Setting("CUDA", device="cuda")


def settings(kernels: Sequence[str]) -> list[Setting]:
    """All settings of a processor; the first is the default. kernels: their names."""
    found = [DEFAULT]
    for threads in ("1", "2", "4"):
        name = "1 thread" if threads == "1" else f"{threads} threads"
        found.append(Setting(name, (("OMP_NUM_THREADS", threads),)))
    for isa, name in (("SSE41", "SSE4.1"), ("AVX2", "AVX2"), ("AVX512_CORE", "AVX-512")):
        found.append(Setting(name, (("ONEDNN_MAX_CPU_ISA", isa),)))
    found.append(Setting("plain ATen", (("ATEN_CPU_CAPABILITY", "default"),)))
    # the int8 kernel is oneDNN's own, whatever PyTorch is told
    found.append(Setting("no oneDNN", (), ("--no-onednn", "--kernel", "float32")))
    for kernel in kernels:
        found.append(Setting(kernel, (), ("--kernel", kernel)))
    for rows in BANDS:
        name = "all rows" if rows == max(BANDS) else f"{rows} rows"
        found.append(Setting(name, (), ("--band", str(rows))))
    return found
