"""Exact convolutions: several ways to compute the same integers (design, section 4).

A layer is ``round(sum(w x) + b) / 2^shift``, halves to even, then clamped. Its
weights are int8, its activations 0..127, and its sums below 2^24 in magnitude
by certificate. Hence every partial sum is an integer that float32 holds, and
any order of summation gives the same result. What is not exact is any algorithm
that transforms its inputs (Winograd, FFT): the kernels here avoid them.
"""

from __future__ import annotations

import dataclasses
import functools
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .config import FILTER_LIMIT, LATENTS, PICTURE_INPUTS, VALUE_MAX, Layer


@dataclass(frozen=True)
class Weights:
    """One layer's integers.

    weight: int8 (outputs, inputs, k, k). shift: int64 (outputs,), 0..31.
    bias: int32 (outputs,), added to the sum before the shift.
    """

    layer: Layer
    weight: Tensor
    shift: Tensor
    bias: Tensor

    @property
    def scale(self) -> Tensor:
        """float32 (outputs,): 2^-shift."""
        return torch.exp2(-self.shift.float())


def folded(weights: Weights, constant: Tensor) -> Weights:
    """A layer without its last inputs, which are ``constant``: uint8 (n,), all over the picture.

    Its integers are the same: what these inputs would add to a sum is added to its bias.
    """
    layer, kept = weights.layer, weights.layer.inputs - len(constant)
    added = (weights.weight[:, kept:].sum((2, 3)) * constant).sum(1)
    return Weights(
        dataclasses.replace(layer, inputs=kept),
        weights.weight[:, :kept].contiguous(),
        weights.shift,
        weights.bias + added.to(torch.int32),
    )


class Kernel(ABC):
    """A layer that is ready to run; calling it returns what :class:`Weights` says.

    Takes uint8 (B, inputs, H, W); returns uint8 (B, outputs, h, w) for
    activations and int16 for values, unpadded.
    """

    def __init__(self, weights: Weights) -> None:
        self.layer = weights.layer

    @abstractmethod
    def __call__(self, x: Tensor) -> Tensor: ...

    def _finished(self, scaled: Tensor) -> Tensor:
        """Rounding and clamping of float32 sums that were multiplied by 2^-shift."""
        layer = self.layer
        if layer.out == "value":
            return scaled.round_().clamp_(-layer.limit, layer.limit).to(torch.int16)
        return scaled.round_().clamp_(0, layer.limit).to(torch.uint8)


class _WithoutNnpack:
    """Keeps NNPACK, which takes Winograd's algorithm, off while any thread is inside.

    PyTorch has one switch for the whole process; it is put back by the last to leave.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside, self._before = 0, (False,)

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._before = torch.backends.nnpack.set_flags(False)  # type: ignore[no-untyped-call]
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                torch.backends.nnpack.set_flags(*self._before)  # type: ignore[no-untyped-call]


_WITHOUT_NNPACK = _WithoutNnpack()


class FloatKernel(Kernel):
    """The reference: float32 convolution of the integers."""

    def __init__(self, weights: Weights) -> None:
        super().__init__(weights)
        self._weight = weights.weight.float().contiguous(memory_format=torch.channels_last)
        self._bias = weights.bias.float()
        self._scale = weights.scale[:, None, None]

    def __call__(self, x: Tensor) -> Tensor:
        with _WITHOUT_NNPACK:
            sums = F.conv2d(x.float(), self._weight, self._bias, stride=self.layer.stride)
        return self._finished(sums.mul_(self._scale))


class MatrixKernel(Kernel):
    """A matrix product for each tap of the kernel: exact on any device, cuda too."""

    def __init__(self, weights: Weights) -> None:
        super().__init__(weights)
        self._taps = weights.weight.float().permute(2, 3, 0, 1).contiguous()
        self._bias = weights.bias.float()[:, None, None]
        self._scale = weights.scale[:, None, None]

    def __call__(self, x: Tensor) -> Tensor:
        k, stride = self.layer.kernel, self.layer.stride
        height, width = ((n - k) // stride + 1 for n in x.shape[-2:])
        taps, planes = self._taps.to(x.device), x.float()
        sums = self._bias.to(x.device).expand(len(x), -1, height, width).clone()
        for i in range(k):
            for j in range(k):
                part = planes[
                    ...,
                    i : i + stride * (height - 1) + 1 : stride,
                    j : j + stride * (width - 1) + 1 : stride,
                ]
                sums += torch.matmul(taps[i, j], part.flatten(2)).view_as(sums)
        return self._finished(sums.mul_(self._scale.to(x.device)))


class Int8Kernel(Kernel):
    """oneDNN's int8 convolution, five to ten times as fast as float32 on x86.

    7-bit activations keep the 16-bit sums of pairs, which processors without
    VNNI form, from saturating.
    """

    def __init__(self, weights: Weights) -> None:
        super().__init__(weights)
        ops = torch.ops.onednn
        layer = weights.layer
        self._scale = weights.scale
        self._zero = torch.zeros(layer.outputs, dtype=torch.int64)
        self._bias = weights.bias.float() * weights.scale
        self._geometry = [layer.stride] * 2, [0, 0], [1, 1], 1
        self._packed = ops.qconv_prepack(weights.weight, self._scale, 1.0, 0, *self._geometry, None)
        self._run: Callable[..., Tensor] = ops.qconv2d_pointwise

    def __call__(self, x: Tensor) -> Tensor:
        layer = self.layer
        if layer.out == "value":
            output: tuple[Any, ...] = (torch.float32, "none", [], "")
        else:
            output = (torch.uint8, "hardtanh", [0.0, float(layer.limit)], "")
        result = self._run(
            x.contiguous(memory_format=torch.channels_last),
            1.0,
            0,
            self._packed,
            self._scale,
            self._zero,
            self._bias,
            *self._geometry,
            1.0,
            0,
            *output,
        )
        return self._finished(result) if layer.out == "value" else result


KERNELS: dict[str, type[Kernel]] = {
    "int8": Int8Kernel,
    "float32": FloatKernel,
    "matrix": MatrixKernel,
}
"""By name; all give the same integers."""


_TRIALS = (
    Layer(64, 32, 3),
    Layer(16, 32, 2, stride=2),
    Layer(80, 8, 1, out="value", limit=VALUE_MAX),
    Layer(PICTURE_INPUTS + LATENTS, 32, 3, out="value", limit=FILTER_LIMIT),
    Layer(PICTURE_INPUTS + 2 * LATENTS, 32, 3, out="value", limit=FILTER_LIMIT),
    Layer(PICTURE_INPUTS, 32, 3),
)


def best_kernel(device: str) -> str:
    """The fastest kernel that computes exactly here; it is put to the test first."""
    if device == "cuda":
        return "matrix"
    return "int8" if is_exact("int8", device) else "float32"


@functools.cache
def is_exact(name: str, device: str = "cpu") -> bool:
    """Whether a kernel exists here and agrees with integer arithmetic at its limits."""
    generator = torch.Generator().manual_seed(1)
    for layer in _TRIALS:
        shape = (layer.outputs, layer.inputs, layer.kernel, layer.kernel)
        weight = torch.randint(-127, 128, shape, generator=generator)
        weight[0] = 127  # the largest sums of pairs that there are
        weight[1] = -127
        shift = torch.randint(6, 14, (layer.outputs,), generator=generator)
        bias = torch.randint(-9999, 9999, (layer.outputs,), generator=generator)
        weights = Weights(layer, weight.to(torch.int8), shift, bias.to(torch.int32))
        x = torch.randint(0, 128, (1, layer.inputs, 12, 20), generator=generator)
        x[..., :8] = 127
        x = x.to(torch.uint8).contiguous(memory_format=torch.channels_last)
        try:
            found = KERNELS[name](weights)(x.to(device)).cpu()
        except (RuntimeError, AttributeError, NotImplementedError, TypeError):
            return False
        if not torch.equal(found, _in_integers(weights, x)):
            return False
    return True


def _in_integers(weights: Weights, x: Tensor) -> Tensor:
    """A layer in 64-bit integers, tap by tap: slow, for checks."""
    layer = weights.layer
    height, width = ((n - layer.kernel) // layer.stride + 1 for n in x.shape[-2:])
    sums = weights.bias.long()[:, None, None].expand(len(x), -1, height, width).clone()
    for i in range(layer.kernel):
        for j in range(layer.kernel):
            part = x[
                ...,
                i : i + layer.stride * (height - 1) + 1 : layer.stride,
                j : j + layer.stride * (width - 1) + 1 : layer.stride,
            ].long()
            tap = weights.weight[:, :, i, j].long()
            sums += (tap[None, :, :, None, None] * part[:, None]).sum(2)
    shift = weights.shift[:, None, None]
    floor = sums >> shift
    twice = 2 * (sums - (floor << shift))
    unit = torch.ones_like(sums) << shift
    up = (twice > unit) | ((twice == unit) & (floor % 2 == 1))
    rounded = floor + up.long()
    if layer.out == "value":
        return rounded.clamp(-layer.limit, layer.limit).to(torch.int16)
    return rounded.clamp(0, layer.limit).to(torch.uint8)
