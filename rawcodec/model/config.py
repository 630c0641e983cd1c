"""The shape of the network: what every model of this format version has in common."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal

QUAD: Final = 2
"""Sites across the block that one position of the latents stands for."""

LATENTS: Final = QUAD * QUAD
"""Channels of the latents z: one for each site of a quad, row by row, so that nothing is out of
reach."""

BLOCK: Final = 4
"""Sites across the block of one position of the base features and the hyper-analysis."""

HYPER_BLOCK: Final = 16
"""Sites across the block of one position of the hyper-latents v."""

STRIPE: Final = 6 << 20
"""Sites of a stripe, but for what its height is rounded up by: larger photos are coded by stripes
of whole rows. Each has filters of its own, and memory does not grow with the photo as much."""

HYPER: Final = 8
"""Channels of the hyper-latents v."""

RATES: Final = 33
"""Gains to choose from; 0 is the coarsest, four to an octave of the step."""

FINE: Final = 16
"""Gains between two rates: a rate changes the bits by a third or more."""

STEPS: Final = 2
"""Steps N in which the positions of the first group of channels are coded."""

GROUPS: Final = ((0,), (3,), (1, 2))
"""Channels of the latents that are coded together: a quarter of the sites, those diagonal to
them, and the rest, of which each has four neighbours that are known."""

PASSES: Final = ((0, 0), (0, 1), (1, None), (2, None))
"""The order of coding: (group of channels, step); None for all positions at once."""

SCALES: Final = 64
"""Standard deviations to choose from."""

SCALE_MIN: Final = 0.015
SCALE_OCTAVES: Final = 13
"""The scales go from 0.015 up over 13 octaves, evenly in the logarithm."""

MEAN_UNIT: Final = 8
"""Means are multiples of 1/8."""

MEAN_LIMIT: Final = 1023
"""Largest magnitude of a mean, in units of 1/8."""

LATENT_LIMIT: Final = 1 << 14
"""The integers that latents are coded as are smaller than this in magnitude."""

TRELLIS_SCALE: Final = 21
"""The smallest scale whose latents have one of two quantisers, by the trellis; those below are
nearly all zero, which only the first quantiser has."""

LANE: Final = 128
"""Latents of a lane of the trellis, at most."""

HYPER_LIMIT: Final = 15
"""Largest magnitude of a hyper-latent."""

HYPER_DEAD_ZONE: Final = 0.5
"""How much farther than a half an encoder lets hyper-latents lie from their mean's integer."""

HYPER_GAIN: Final = 4
"""A hyper-latent enters the network as 64 + 4 v."""

FILTER_UNIT: Final = 4
"""Fitted filters correct in units of four companded values."""

FILTER_LIMIT: Final = 2047

VALUE_MAX: Final = (1 << 15) - 1

ACTIVATION_MAX: Final = 127
"""Activations are integers from 0 to 127."""

ZERO: Final = 64
"""The activation that stands for zero where a value has a sign."""

DISTORTION_WEIGHT: Final = 6 / math.log(2)
"""Bits that a squared step is worth to the encoder, from high-rate theory.

A uniform quantiser's distortion is step^2 / 12 and its rate falls by log2 of the step; the sum of
rate and weighted distortion is least at the step if it weighs 6 / ln 2.
"""

PATTERN: Final = 64
"""Rows and columns of the stored noise of the order prediction, repeated over the positions."""

TRUNK_MARGIN: Final = 16
"""Sites around the picture that the network's inputs cover: what its convolutions reach."""

WIDTH: Final = 64
HALF_WIDTH: Final = 32
HYPER_WIDTH: Final = 32
HYPER_UP: Final = 16
UP_WIDTH: Final = 24
CONTEXT_WIDTH: Final = 32
DETAIL_WIDTH: Final = HALF_WIDTH  # they take the same memory, one after the other
CONTEXT_INPUTS: Final = 2 * LATENTS + 1
PICTURE_INPUTS: Final = 23
INPUTS: Final = PICTURE_INPUTS + LATENTS + 3 * LATENTS + 1


@dataclass(frozen=True)
class Layer:
    """One convolution, without padding.

    out: ``"activation"``, integers 0..``limit``; or ``"value"``, integers of
        magnitude up to ``limit``.
    conditioned: whether the bias depends on the rate.
    """

    inputs: int
    outputs: int
    kernel: int
    stride: int = 1
    out: Literal["activation", "value"] = "activation"
    limit: int = ACTIVATION_MAX
    conditioned: bool = False


def _layers() -> dict[str, Layer]:
    layers = {
        "trunk.0": Layer(INPUTS, HALF_WIDTH, 3),
        "trunk.1": Layer(HALF_WIDTH, HALF_WIDTH, 3),
        "down": Layer(HALF_WIDTH, WIDTH, 2, stride=2),
        "trunk.2": Layer(WIDTH, WIDTH, 3),
        "trunk.3": Layer(WIDTH, WIDTH, 3),
        "hyper.0": Layer(HYPER, HYPER_WIDTH, 3, conditioned=True),
        "hyper.1": Layer(HYPER_WIDTH, HYPER_UP * (HYPER_BLOCK // BLOCK) ** 2, 1),
        "base": Layer(WIDTH + HYPER_UP, WIDTH, 3, conditioned=True),
        "up": Layer(WIDTH, 4 * UP_WIDTH, 1),
        "detail": Layer(HALF_WIDTH + UP_WIDTH, DETAIL_WIDTH, 1, conditioned=True),
        "order": Layer(DETAIL_WIDTH, STEPS, 1, out="value", limit=VALUE_MAX),
    }
    width = CONTEXT_WIDTH
    for number, (group, _) in enumerate(PASSES):
        count = len(GROUPS[group])
        seen = DETAIL_WIDTH
        if number > 0:  # nothing is known before the first
            layers[f"context.{number}.0"] = Layer(CONTEXT_INPUTS, width, 5)
            seen += width
        layers |= {
            f"context.{number}.1": Layer(seen, width, 1, conditioned=True),
            f"context.{number}.2": Layer(width, width, 1),
            f"context.{number}.mean": Layer(width, count, 1, out="value", limit=MEAN_LIMIT),
            f"context.{number}.scale": Layer(width, count, 1, limit=SCALES - 1, conditioned=True),
        }
    return layers


LAYERS: Final = _layers()
"""Every convolution that the decoder runs, by name."""


def operations_per_site() -> float:
    """Multiply-accumulates of the decoder's networks per photosite, without overlaps."""
    total = 0.0
    for name, layer in LAYERS.items():
        per_position = layer.inputs * layer.outputs * layer.kernel**2
        if name.startswith("hyper"):
            sites = HYPER_BLOCK**2
        elif name in ("down", "trunk.2", "trunk.3", "base", "up"):
            sites = BLOCK**2
        else:
            sites = QUAD**2
        total += per_position / sites
    return total


def signed_inputs(name: str) -> list[bool]:
    """For each input channel of a layer, whether ``ZERO`` stands for zero there."""
    layer = LAYERS[name]
    if name == "trunk.0":
        return [3 <= c < 15 or 19 <= c < 27 for c in range(layer.inputs)]
    if name == "hyper.0":
        return [True] * layer.inputs
    with_latents = name.startswith("context") and name.endswith(".0")
    return [with_latents and c < LATENTS for c in range(layer.inputs)]
