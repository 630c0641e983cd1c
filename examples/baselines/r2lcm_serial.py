"""The paper's "Ours (serial)": its system with the context model of those before it.

The context of a latent is a masked convolution of those above and to the left (Minnen et al.,
NeurIPS 2018; Cheng et al., CVPR 2020), in the place of the order network and its steps. In
training all latents are known, and one convolution serves them all; in decoding every position
waits for the one before, which takes the paper more than ten hours for 2920 x 4386 pixels
(supplement, table 1). The rest, and what is said of floating point, is as in ``r2lcm``.
"""

from __future__ import annotations

import io
import time
from typing import ClassVar, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from .interface import pixels
from .r2lcm import (
    LATENTS,
    R2LCM,
    SCALE_MIN,
    Coder,
    Meter,
    Order,
    StreamCoder,
    Transforms,
    entropy_network,
    in_bands,
    mean_and_scale,
)

REACH = 2
"""Rows and columns that the context looks back; its kernel is 2 * REACH + 1 wide."""

SLOPE = 0.01
"""Of PyTorch's LeakyReLU below 0."""


class SerialNetwork(Transforms):
    """All weights: the transforms and the serial context model."""

    def __init__(self, scale: int = 1) -> None:
        super().__init__(scale)
        side = 2 * REACH + 1
        self.context = nn.Conv2d(LATENTS, 2 * LATENTS, side, padding=REACH)
        self.entropy = entropy_network(4 * LATENTS)
        before = torch.arange(side * side) < side * side // 2
        self.register_buffer("before", before.reshape(side, side).float(), persistent=False)
        self.before: Tensor

    def parameters_of(self, features: Tensor, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and scale of every latent, (B, LATENTS, h, w) both, from those before it.

        features: (B, 2 * LATENTS, h, w). latents: (B, LATENTS, h, w).
        """
        return mean_and_scale(in_bands(self._entropy_of, (features, latents), 2 * REACH))

    def _entropy_of(self, features: Tensor, latents: Tensor) -> Tensor:
        weight = self.context.weight * self.before
        context = F.conv2d(latents, weight, self.context.bias, padding=REACH)
        result: Tensor = self.entropy(torch.cat([features, context], 1))
        return result

    def code(self, features: Tensor, picture: Tensor, coder: Coder) -> Tensor:
        """Code all latents: at once if the coder knows them and only measures, else in turn."""
        if isinstance(coder, Meter):
            mean, scale = self.parameters_of(features, coder.values)
            return coder.latents(torch.ones_like(mean[:, :1]), mean, scale)
        assert isinstance(coder, StreamCoder)
        return torch.from_numpy(self._in_turn(features[0].numpy(), coder))[None]

    def _in_turn(self, features: np.ndarray, coder: StreamCoder) -> np.ndarray:
        """Code position after position: the latents, float32 (LATENTS, h, w).

        Encoder and decoder both do: computed all at once, means would differ in last bits.
        """
        _, height, width = features.shape
        of_features, of_context, bias, second, second_bias, last, last_bias = self._matrices()
        # Rows and columns of zeros around what is decoded; channels last, so that a
        # position's neighbours in a row lie in a row.
        decoded = np.zeros((height + REACH, width + 2 * REACH, LATENTS), np.float32)
        for row in range(height):
            above = [decoded[row + i] for i in range(REACH)]
            current = decoded[row + REACH]
            known = features[:, row].T @ of_features + bias
            for column in range(width):
                near = [line[column : column + 2 * REACH + 1].ravel() for line in above]
                near.append(current[column : column + REACH].ravel())
                x = known[column] + of_context @ np.concatenate(near)
                x = second @ np.maximum(x, SLOPE * x) + second_bias
                x = last @ np.maximum(x, SLOPE * x) + last_bias
                values = coder.symbols.latents[:, row, column]
                scale = np.maximum(x[LATENTS:], SCALE_MIN)
                values[:] = coder.gaussians(values, x[:LATENTS], scale)
                current[column + REACH] = values
        inner = decoded[REACH:, REACH : REACH + width]
        return np.ascontiguousarray(inner.transpose(2, 0, 1))

    def _matrices(self) -> list[np.ndarray]:
        """The layers as matrices and biases, the context's folded into the first that sees it."""
        first, _, second, _, last = self.entropy
        of_features, of_context = first.weight[:, :, 0, 0].split(2 * LATENTS, 1)
        taps = self.context.weight[:, :, self.before > 0]  # (outputs, LATENTS, taps)
        of_context = of_context @ taps.transpose(1, 2).flatten(1)
        bias = first.bias + first.weight[:, 2 * LATENTS :, 0, 0] @ self.context.bias
        found = (
            of_features.T,
            of_context,
            bias,
            second.weight[:, :, 0, 0],
            second.bias,
            last.weight[:, :, 0, 0],
            last.bias,
        )
        return [np.ascontiguousarray(x.detach().numpy()) for x in found]


class DecodeTime(NamedTuple):
    """Seconds that decoding a crop took, and what that makes for a whole picture.

    crop, size: rows and columns. All parts of a decoder take time in proportion to the pixels.
    """

    crop: tuple[int, int]
    seconds: float
    size: tuple[int, int]

    @property
    def factor(self) -> float:
        """Pixels of the whole for one of the crop."""
        return self.size[0] * self.size[1] / (self.crop[0] * self.crop[1])

    @property
    def extrapolated(self) -> float:
        """Seconds for the whole."""
        return self.seconds * self.factor

    def __str__(self) -> str:
        (rows, columns), (height, width) = self.crop, self.size
        return (
            f"{self.seconds:.2f} s for {rows} x {columns} pixels, times {self.factor:.1f} "
            f"for {height} x {width}: {self.extrapolated:.0f} s (extrapolated)"
        )


class R2LCMSerial(R2LCM):
    """The serial variant. Arguments are those of ``R2LCM``, but its order is always the same."""

    _magic: ClassVar[bytes] = b"R2LS"

    def _network(self, order: Order, scale: int) -> Transforms:
        if order != "learned":
            raise ValueError("the serial variant has one order, row by row")
        return SerialNetwork(scale)

    def _name(self) -> str:
        return f"R2LCM, serial{', z at 1/4' if self.network.scale == 4 else ''}"

    def decode_time(
        self,
        raw: np.ndarray,
        picture: bytes,
        size: tuple[int, int] | None = None,
        crop: tuple[int, int] = (64, 64),
    ) -> DecodeTime:
        """Measure how long decoding takes, on the middle of a photo.

        size: rows and columns to extrapolate to; None for the photo's own. crop: at most.
        """
        shown = pixels(picture)
        rows, columns = (min(part, whole) for part, whole in zip(crop, shown.shape, strict=False))
        top, left = (shown.shape[0] - rows) // 2, (shown.shape[1] - columns) // 2
        middle = (slice(top, top + rows), slice(left, left + columns))
        file = io.BytesIO()
        Image.fromarray(shown[middle]).save(file, "PNG")
        data = self.encode(raw[middle], file.getvalue())
        begun = time.perf_counter()
        self.decode(data, file.getvalue())
        seconds = time.perf_counter() - begun
        height, width = shown.shape[:2]
        return DecodeTime((rows, columns), seconds, size or (height, width))
