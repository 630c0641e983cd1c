"""Trellis-coded quantisation: two quantisers, and a state that tells which one a latent has.

The second quantiser lies half a step beside the first. Which of them a latent has follows from
the parities of those before it, so that the decoder knows it for nothing, while the encoder may
take the best of all paths and has in effect a finer choice: up to a decibel less error at the same
bits (Marcellin and Fischer, "Trellis coded quantization of memoryless and Gauss-Markov sources",
IEEE Trans. Communications, 1990). The states are those of eight-state dependent quantisation
(Schwarz et al., "Quantization and Entropy Coding in the Versatile Video Coding (VVC) Standard",
IEEE Trans. Circuits and Systems for Video Technology, 2021).

Latents lie in lanes of which each has a state of its own. Step t of all lanes is one stretch of
the latents, whose quantisers are known once the step before is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from .bands import over_bands
from .config import LANE

NEXT = np.array([0, 2, 5, 7, 1, 3, 6, 4, 2, 0, 4, 6, 3, 1, 7, 5], np.uint8)
"""The state after twice a state plus the parity of its latent's integer."""

_STATES = len(NEXT) // 2

_INTO = np.argsort(NEXT, kind="stable").reshape(_STATES, 2)
"""For each state the two ways into it: twice the state before, plus the parity."""

_BEFORE = _INTO >> 1
_COLUMN = 2 * (_BEFORE & 1) + (_INTO & 1)
"""Of each way, twice the quantiser plus the parity."""

_TOGETHER = 1 << 12
"""Lanes whose paths are looked for at a time: enough for NumPy, and few enough for the cache."""

Prices = Callable[[slice], tuple[np.ndarray, np.ndarray, np.ndarray]]
"""What n of the latents may become, with either quantiser: the integers below them, int32 (2, n),
and what these and the next ones cost, float32 (2, n)."""


def second(state: np.ndarray) -> np.ndarray:
    """Of states uint8 (n,), 1 where the latent has the second quantiser."""
    return state & 1


def after(state: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """The states, uint8 (n,), that follow when the integers (n,) were chosen in ``state``."""
    following: np.ndarray = NEXT.take(2 * state + (chosen & 1).astype(np.uint8))
    return following


def _lanes(count: int) -> int:
    return -(-count // LANE)


def steps(count: int) -> Iterator[slice]:
    """Where the steps lie of so many latents; in the last ones, lanes may be missing."""
    lanes = _lanes(count)
    for start in range(0, count, max(lanes, 1)):
        yield slice(start, min(start + lanes, count))


def walk(count: int, code: Callable[[slice, np.ndarray], np.ndarray]) -> np.ndarray:
    """So many latents, in half steps: int16 (count,).

    code: the integers of a step, from where it lies and ``second`` of its latents.
    """
    result = np.empty(count, np.int16)
    state = np.zeros(_lanes(count), np.uint8)
    for part in steps(count):
        state = state[: part.stop - part.start]
        other = second(state)
        chosen = code(part, other)
        result[part] = 2 * chosen - other
        state = after(state, chosen)
    return result


def best(count: int, prices: Prices) -> np.ndarray:
    """The integers of so many latents that cost the least along their lanes: int16 (count,).

    Viterbi's algorithm: of the paths into a state only the cheapest is followed.
    """
    lanes = _lanes(count)
    result = np.empty(count, np.int16)

    def find(first: int, last: int) -> None:
        width = last - first
        parts = [slice(min(t * lanes + first, count), min(t * lanes + last, count))
                 for t in range(LANE)]  # fmt: skip
        below = np.empty((LANE, 2, width), np.int32)
        came = np.empty((LANE, _STATES, width), bool)
        cost = np.full((_STATES, width), np.inf, np.float32)
        cost[0] = 0
        # by quantiser and parity; a lane that has ended pays no more
        price = np.zeros((2, 2, width), np.float32)
        for t, part in enumerate(parts):
            n = part.stop - part.start
            if n < width:
                price[:] = 0
            if n:
                below[t, :, :n], low, high = prices(part)
                odd = (below[t, :, :n] & 1).astype(bool)
                price[:, 0, :n] = low
                price[:, 1, :n] = high
                np.copyto(price[:, 0, :n], high, where=odd)
                np.copyto(price[:, 1, :n], low, where=odd)
            columns = price.reshape(4, width)
            one, other = (cost.take(_BEFORE[:, way], 0) for way in (0, 1))
            one += columns.take(_COLUMN[:, 0], 0)
            other += columns.take(_COLUMN[:, 1], 0)
            np.less(other, one, out=came[t])
            cost = np.minimum(one, other, out=one)
        state, lane = cost.argmin(0), np.arange(width)
        into = _INTO.ravel()
        for t, part in reversed(list(enumerate(parts))):
            way = into.take(2 * state + came[t].reshape(-1).take(state * width + lane))
            state = way >> 1
            n = part.stop - part.start
            if n:
                low = below[t].reshape(-1).take(second(state) * width + lane)[:n]
                result[part] = low + ((low ^ way[:n]) & 1)

    over_bands(0, lanes, _TOGETHER, find)
    return result
