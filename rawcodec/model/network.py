"""The graph of the decoder's networks, and the one walk over the latents.

Here is which layer follows which. What a layer computes with is the caller's
choice: integers in the codec (:mod:`.kernels`), their imitation by floats in
training. Both run these functions, so that they cannot drift apart.

Latents, the trunk's first layers and contexts have a position for each quad of
2x2 sites; the base and what it is made of, for each block of 4x4.
All convolutions are without padding; what they reach beyond the picture is
given to them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from .config import GROUPS, PASSES, STEPS

LayerFunction = Callable[[str, Tensor], Tensor]
"""Applies the layer of a name to activations (B, C, H, W)."""


class LatentCoder(Protocol):
    """What codes the latents of one pass: writes, reads, or measures them."""

    def code(self, number: int, here: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
        """The latents of pass ``number`` at the positions ``here``.

        here: (B, 1, h, w), 1 at the positions of the pass. mean, scale: (B, c,
        h, w), as the layers give them, for the c channels of the pass's group.
        Returns (B, c, h, w), in steps or, as integers, in half steps; what it has elsewhere does
        not matter.
        """
        ...


def half_features(layer: LayerFunction, inputs: Tensor) -> Tensor:
    """Features at half the sensor's resolution; reaches 2 of its positions."""
    return layer("trunk.1", layer("trunk.0", inputs))


def guide_features(layer: LayerFunction, half: Tensor) -> Tensor:
    """Features at a quarter of the sensor's resolution; reaches 2 of its positions."""
    return layer("trunk.3", layer("trunk.2", layer("down", half)))


def hyper_features(layer: LayerFunction, hyper: Tensor) -> Tensor:
    """The hyper-latents at positions of blocks; reaches one position of v.

    hyper: activations (B, 8, h + 2, w + 2). Returns (B, 16, 4h, 4w).
    """
    return F.pixel_shuffle(layer("hyper.1", layer("hyper.0", hyper)), 4)


def base_features(layer: LayerFunction, guide: Tensor, hyper: Tensor) -> Tensor:
    """What the entropy model knows before any latent; reaches 1 position."""
    return layer("base", torch.cat([guide, hyper], 1))


def detail_features(layer: LayerFunction, half: Tensor, base: Tensor) -> Tensor:
    """What the entropy model knows of quads before any latent.

    half: (B, 32, 2h, 2w), as of ``half_features``. base: (B, 64, h, w). Returns (B, 32, 2h, 2w).
    """
    return layer("detail", torch.cat([half, F.pixel_shuffle(layer("up", base), 2)], 1))


def parameters(
    layer: LayerFunction, number: int, detail: Tensor, known: Tensor
) -> tuple[Tensor, Tensor]:
    """Mean and scale of the latents of pass ``number``; reaches 2 positions of ``known``.

    detail: (B, 32, h, w). known: activations (B, 9, h + 4, w + 4), of the latents known so far:
    their levels, zero where they are not known, the levels' sizes, and whether the position
    belongs to the first step. The first pass does not look at it.

    Returns (B, c, h, w) each, for the c channels of the pass's group.
    """
    name = f"context.{number}"
    seen = detail if number == 0 else torch.cat([layer(f"{name}.0", known), detail], 1)
    mixed = layer(f"{name}.2", layer(f"{name}.1", seen))
    return layer(f"{name}.mean", mixed), layer(f"{name}.scale", mixed)


def walk(
    coder: LatentCoder,
    steps: list[Tensor],
    known: Tensor,
    parameters_of: Callable[[int, Tensor], tuple[Tensor, Tensor]],
) -> Tensor:
    """Code all latents, pass after pass, and return them: (B, 4, h, w).

    The only place that knows the order: encoding, decoding and training walk
    through it, each with its own coder.

    steps: for each step (B, 1, h, w), 1 at the positions that belong to it.
    known: zeros (B, 4, h, w), which become the latents where they are integers.
    parameters_of: mean and scale of a pass, from the latents that are known.
    """
    assert len(steps) == STEPS
    everywhere = torch.ones_like(steps[0])
    for number, (group, step) in enumerate(PASSES):
        channels = slice(GROUPS[group][0], GROUPS[group][-1] + 1)
        here = everywhere if step is None else steps[step]
        mean, scale = parameters_of(number, known)
        latents = coder.code(number, here, mean, scale)
        if step is not None:
            latents = latents * here
        if known.is_floating_point():  # training, which remembers what it saw
            update = torch.zeros_like(known)
            update[:, channels] = latents
            known = known + update
        else:
            known[:, channels] += latents
        del mean, scale, latents  # before others are made
    return known
