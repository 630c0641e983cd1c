"""Convolutions of integers: every kernel gives the same ones, or is found out."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.lib.stride_tricks import sliding_window_view

from rawcodec import learned
from rawcodec.errors import DeviceError
from rawcodec.model import kernels
from rawcodec.model.config import (
    FILTER_LIMIT,
    LAYERS,
    PICTURE_INPUTS,
    RATES,
    VALUE_MAX,
    Layer,
)
from rawcodec.model.fitted import CHANNELS, OUTPUTS
from rawcodec.model.kernels import KERNELS, FloatKernel, Int8Kernel, Weights, folded
from rawcodec.model.store import SUM_LIMIT, certify

HERE = Path(__file__).resolve().parent
X86 = platform.machine().lower() in ("x86_64", "amd64", "i686")
LAST = SUM_LIMIT - 1
"""The largest sum that a layer may reach."""

FILTERS = {
    f"a filter of {count}": Layer(CHANNELS, count, 3, out="value", limit=FILTER_LIMIT)
    for count in (4, 12, 24, OUTPUTS)
}
"""Filters that are fitted to photos, with as many outputs as classes and colours make of them."""

FOLDED = {
    "folded trunk.0": replace(LAYERS["trunk.0"], inputs=PICTURE_INPUTS),
    "a folded filter": replace(FILTERS["a filter of 12"], inputs=PICTURE_INPUTS),
    "a filter that sees latents": replace(FILTERS["a filter of 12"], inputs=PICTURE_INPUTS + 4),
}
"""Layers without the inputs that are the same all over the picture."""

EVERY = LAYERS | FILTERS | FOLDED


def in_integers(weights: Weights, x: np.ndarray) -> np.ndarray:
    """What a layer is, in 64-bit integers: windows, sums, halves to even, limits."""
    layer = weights.layer
    windows = sliding_window_view(x.astype(np.int64), (layer.kernel, layer.kernel), (2, 3))
    windows = windows[:, :, :: layer.stride, :: layer.stride]
    sums = np.einsum("bihwyx,oiyx->bohw", windows, weights.weight.numpy().astype(np.int64))
    sums += weights.bias.numpy().astype(np.int64)[:, None, None]
    divisor = np.int64(1) << weights.shift.numpy()[:, None, None]
    quotient, rest = np.divmod(sums, divisor)
    quotient += 2 * rest > divisor
    quotient += (2 * rest == divisor) & (quotient % 2 == 1)
    low = -layer.limit if layer.out == "value" else 0
    return np.clip(quotient, low, layer.limit)


def hard_weights(layer: Layer, seed: int = 0) -> Weights:
    """Weights at their limits in the first outputs, any in the others.

    Where a layer has one or two, any, and sums that are within its limits as often as not.
    """
    rng = np.random.default_rng(seed)
    shape = (layer.outputs, layer.inputs, layer.kernel, layer.kernel)
    weight = rng.integers(-127, 128, shape)
    if layer.outputs > 2:
        weight[0] = 127
        weight[1] = -127
    shift = rng.integers(5, 16, layer.outputs)
    bias = rng.integers(-99_999, 100_000, layer.outputs)
    if layer.outputs <= 2:
        size = 73 * 73 * np.sqrt(layer.inputs) * layer.kernel
        shift[:] = max(1, round(np.log2(size / layer.limit)))
        bias = (layer.limit // 2 if layer.out == "activation" else 0) << shift
    room = LAST - 127 * np.abs(weight).sum((1, 2, 3))
    assert room.min() >= 0  # the layers of this format may have any weights
    bias = np.clip(bias, -room, room)
    if layer.outputs > 2:
        bias[:2] = room[0], -room[1]
    if layer.outputs > 4:
        weight[2], bias[2] = 0, 8  # 8 / 16 is a half, that goes down
        weight[3], bias[3] = 0, 24  # and 24 / 16 one that goes up
        shift[2:4] = 4
    return Weights(
        layer,
        torch.from_numpy(weight.astype(np.int8)),
        torch.from_numpy(shift),
        torch.from_numpy(bias.astype(np.int32)),
    )


def hard_input(layer: Layer, height: int, width: int, highest: int = 127) -> np.ndarray:
    """Activations: the largest, the smallest, the two in turn, and any."""
    shape = (1, layer.inputs, height, width)
    x = np.random.default_rng(7).integers(0, highest + 1, shape)
    x[..., : width // 4] = highest
    x[..., width // 4 : width // 2 : 2] = 0
    x[:, ::2, : height // 3] = highest
    x[:, 1::2, : height // 3] = 0
    return x.astype(np.uint8)


def skip_unless_there(kernel: str) -> None:
    if kernel == "int8" and not X86:
        pytest.skip("oneDNN's int8 convolution is made for x86")


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("layer", dict.fromkeys(EVERY.values()), ids=str)
def test_a_layer_gives_the_integers(layer: Layer, kernel: str) -> None:
    skip_unless_there(kernel)
    weights = hard_weights(layer)
    run = KERNELS[kernel](weights)
    for height, width in ((9, 22), (layer.kernel, layer.kernel), (layer.kernel, 17), (24, 5)):
        x = hard_input(layer, height, width)
        expected = in_integers(weights, x)
        for memory in (torch.contiguous_format, torch.channels_last):
            found = run(torch.from_numpy(x).contiguous(memory_format=memory))
            assert found.dtype == (torch.int16 if layer.out == "value" else torch.uint8)
            assert np.array_equal(found.numpy(), expected)
    assert len(np.unique(expected)) > 1


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("name", ["trunk.0", "a filter of 12"])
def test_a_layer_without_its_constant_inputs_gives_the_same(name: str, kernel: str) -> None:
    skip_unless_there(kernel)
    weights = hard_weights(EVERY[name])
    x = hard_input(weights.layer, 9, 22)
    constant = np.resize(np.array([64, 0, 127, 1], np.uint8), x.shape[1] - PICTURE_INPUTS)
    x[:, PICTURE_INPUTS:] = constant[:, None, None]
    less = folded(weights, torch.from_numpy(constant))
    assert less.layer.inputs == PICTURE_INPUTS
    found = KERNELS[kernel](less)(torch.from_numpy(x[:, :PICTURE_INPUTS]))
    assert np.array_equal(found.numpy(), in_integers(weights, x))


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("out", ["activation", "value"])
def test_halves_go_to_the_even_neighbour(kernel: str, out: Any) -> None:
    """Of both signs, whatever the divisor."""
    skip_unless_there(kernel)
    layer = Layer(1, 23, 1, out=out, limit=VALUE_MAX if out == "value" else 127)
    shift = torch.arange(1, 24)
    weight = torch.zeros((23, 1, 1, 1), dtype=torch.int8)
    for odd in (*range(-9, 10, 2), 251, 253, 255):
        bias = (odd << (shift - 1)).clamp(-LAST, LAST).to(torch.int32)
        weights = Weights(layer, weight, shift, bias)
        x = np.full((1, 1, 2, 3), 127, np.uint8)
        found = KERNELS[kernel](weights)(torch.from_numpy(x)).numpy()
        assert np.array_equal(found, in_integers(weights, x))
        if abs(odd) < 10:
            half = odd / 2
            even = round(half)  # Python rounds halves to even
            assert set(found[:, :20].ravel()) == {even if out == "value" else max(even, 0)}


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_largest_sums_that_are_certified_are_exact(kernel: str) -> None:
    """Of both signs, with nothing to spare."""
    skip_unless_there(kernel)
    layer = Layer(112, 3, 3, out="value", limit=VALUE_MAX)
    weight = np.full((3, 112, 3, 3), 127)
    weight[1] = -127
    weight[2] = np.where(np.arange(9).reshape(3, 3) % 2, 127, -127)
    room = LAST - 127 * np.abs(weight).sum((1, 2, 3))
    bias = np.array([room[0], -room[1], room[2]])
    assert room.min() > 0
    packed = torch.from_numpy(weight.astype(np.int8))
    offset = torch.from_numpy(bias.astype(np.int32))
    shift = torch.tensor([10, 10, 1], dtype=torch.uint8)
    certify("here", layer, packed, shift, offset[None])
    weights = Weights(layer, packed, shift.long(), offset)
    x = hard_input(layer, 9, 40)
    expected = in_integers(weights, x)
    assert (expected[:, 0].max(), expected[:, 1].min()) == (1 << 14, -(1 << 14))
    assert np.array_equal(KERNELS[kernel](weights)(torch.from_numpy(x)).numpy(), expected)


# Several threads, as bands of rows are computed


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("name", ["trunk.2", "context.1.0", "context.3.mean", *FILTERS])
def test_threads_that_share_a_kernel_get_the_integers(name: str, kernel: str) -> None:
    skip_unless_there(kernel)
    layer = EVERY[name]
    weights = hard_weights(layer)
    run = KERNELS[kernel](weights)
    inputs = [hard_input(layer, 9 + n, 31 - n) for n in range(4)]
    expected = [in_integers(weights, x) for x in inputs]
    before = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(4, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            found = list(pool.map(lambda n: run(torch.from_numpy(inputs[n % 4])), range(24)))
    finally:
        torch.set_num_threads(before)
    for number, part in enumerate(found):
        assert np.array_equal(part.numpy(), expected[number % 4])


def test_no_thread_computes_with_what_is_not_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """NNPACK stays off as long as a convolution runs, though one in another thread is done."""
    layer = LAYERS["trunk.2"]
    run = FloatKernel(hard_weights(layer))
    x = torch.from_numpy(hard_input(layer, 9, 22))
    ready, done = threading.Event(), threading.Event()
    seen: list[bool] = []
    convolution = F.conv2d

    def watched(*arguments: Any, **options: Any) -> torch.Tensor:
        if threading.current_thread() is threading.main_thread():
            other.start()
            ready.wait(1)  # until the other convolves too, unless it has to wait for this one
        else:
            ready.set()
            done.wait(1)
            seen.append(torch._C._get_nnpack_enabled())
        return convolution(*arguments, **options)

    monkeypatch.setattr(F, "conv2d", watched)
    other = threading.Thread(target=run, args=(x,))
    with torch.backends.nnpack.flags(enabled=True):
        run(x)
        done.set()
        other.join()
    assert seen == [False]


# The certificate


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("name", LAYERS)
def test_the_certificate_ends_at_the_limit(name: str, sign: int) -> None:
    """Below it the sums of any input are exact in float32; one more, and they might not be."""
    layer = LAYERS[name]
    rates = RATES if layer.conditioned else 1
    weights = hard_weights(layer, seed=1)
    shift = weights.shift.to(torch.uint8)
    room = LAST - 127 * weights.weight.long().abs().sum((1, 2, 3))
    bias = torch.zeros((rates, layer.outputs), dtype=torch.int32)
    bias[rates // 2] = sign * room
    certify(name, layer, weights.weight, shift, bias)
    for rate, output in ((rates // 2, 0), (rates // 2, layer.outputs - 1)):
        beyond = bias.clone()
        beyond[rate, output] += sign
        with pytest.raises(ValueError, match=rf"^{name}: sums may reach {SUM_LIMIT}, .*limit$"):
            certify(name, layer, weights.weight, shift, beyond)


def test_the_certificate_takes_the_worst_rate() -> None:
    layer = LAYERS["base"]
    weights = hard_weights(layer)
    shift = weights.shift.to(torch.uint8)
    for rate in range(RATES):
        bias = torch.zeros((RATES, layer.outputs), dtype=torch.int32)
        bias[rate, 5] = SUM_LIMIT
        with pytest.raises(ValueError, match="sums may reach"):
            certify("base", layer, weights.weight, shift, bias)


def test_the_certificate_refuses_other_arrays() -> None:
    layer = LAYERS["hyper.0"]
    weights = hard_weights(layer)
    weight, shift = weights.weight, weights.shift.to(torch.uint8)
    bias = torch.zeros((RATES, layer.outputs), dtype=torch.int32)
    certify("it", layer, weight, shift, bias)
    lowest, far = weight.clone(), shift.clone()
    lowest[3, 2, 1, 0], far[3] = -128, 24
    for parts in (
        (lowest, shift, bias),
        (weight, far, bias),
        (weight.to(torch.int16), shift, bias),
        (weight, shift.to(torch.int8), bias),
        (weight, shift, bias.long()),
        (weight, shift, bias.float()),
        (weight[:-1], shift, bias),
        (weight[:, :, :2], shift, bias),
        (weight.flatten(1), shift, bias),
        (weight, shift[:-1], bias),
        (weight, shift, bias[:1]),
        (weight, shift, bias[0]),
        (weight, shift, bias[:, :-1]),
    ):
        with pytest.raises(ValueError, match=r"^it: "):
            certify("it", layer, *parts)


# Other instruction sets: each is a process of its own, since libraries ask once


def report() -> dict[str, dict[str, bool]]:
    """What the kernels compute in this process."""
    same = dict.fromkeys(KERNELS, True)
    for layer in dict.fromkeys(EVERY.values()):
        weights, x = hard_weights(layer), hard_input(layer, 7, 13)
        expected = in_integers(weights, x)
        for name, kernel in KERNELS.items():
            same[name] &= np.array_equal(kernel(weights)(torch.from_numpy(x)), expected)
    return {
        "same": same,
        "exact": {name: kernels.is_exact(name) for name in KERNELS},
        "eight bits": {name: exact_with_eight_bits(name) for name in KERNELS},
    }


def exact_with_eight_bits(kernel: str) -> bool:
    """Whether a kernel would be exact if activations went up to 255."""
    layer = Layer(16, 8, 3, out="value", limit=VALUE_MAX)
    weights = hard_weights(layer)
    x = hard_input(layer, 9, 22, highest=255)
    return np.array_equal(KERNELS[kernel](weights)(torch.from_numpy(x)), in_integers(weights, x))


@cache
def limited_to(instructions: str) -> dict[str, Any]:
    """What a process limited to older instructions computes."""
    environment = {
        **os.environ,
        "ONEDNN_MAX_CPU_ISA": instructions,
        "ATEN_CPU_CAPABILITY": "default",
        "PYTHONPATH": os.pathsep.join([str(HERE), str(Path(learned.__file__).parents[1])]),
    }
    code = "import json, test_kernels; print(json.dumps(test_kernels.report()))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.skipif(not X86, reason="the variables limit x86 processors")
@pytest.mark.parametrize("instructions", ["SSE41", "AVX2", "AVX512_CORE"])
def test_older_processors_give_the_same_integers(instructions: str) -> None:
    found = limited_to(instructions)
    assert found["exact"] == dict.fromkeys(KERNELS, True)
    assert found["same"] == dict.fromkeys(KERNELS, True)


@pytest.mark.skipif(not X86, reason="only x86 has sums of pairs that saturate")
@pytest.mark.parametrize("instructions", ["SSE41", "AVX2"])
def test_activations_of_eight_bits_would_not_be_exact(instructions: str) -> None:
    """Why they have seven: two products of 255 and 127 do not fit the 16 bits of their sum."""
    found = limited_to(instructions)["eight bits"]
    assert found == {"int8": False, "float32": True, "matrix": True}


# Kernels that are put to the test


class Saturating(FloatKernel):
    """Makes the 16-bit sums of ``together`` products that older processors make."""

    together = 2

    def __init__(self, weights: Weights) -> None:
        super().__init__(weights)
        self._weights = weights

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        layer = self.layer
        weight = self._weights.weight.double().flatten(1)
        columns = F.unfold(x.double(), layer.kernel, stride=layer.stride)[0]
        sums = self._weights.bias.double()[:, None].expand(-1, columns.shape[1]).clone()
        for start in range(0, len(columns), self.together):
            part = slice(start, start + self.together)
            sums += (weight[:, part] @ columns[part]).clamp(-(1 << 15), (1 << 15) - 1)
        height, width = ((n - layer.kernel) // layer.stride + 1 for n in x.shape[-2:])
        return self._finished(sums.view(1, -1, height, width) * self._scale)


class SaturatingMore(Saturating):
    together = 3


class HalvesUp(FloatKernel):
    """Rounds halves away from zero."""

    def _finished(self, scaled: torch.Tensor) -> torch.Tensor:
        return super()._finished(scaled.sign() * (scaled.abs() + 0.5).floor())


class OffByOne(FloatKernel):
    """Is one unit too high in one place of a picture."""

    def _finished(self, scaled: torch.Tensor) -> torch.Tensor:
        result = super()._finished(scaled)
        middle = result.shape[-1] // 2
        result[0, -1, 0, middle] ^= 1
        return result


class Absent(Int8Kernel):
    """An operator that this build of PyTorch does not have."""

    def __init__(self, weights: Weights) -> None:
        super().__init__(weights)
        self._run = torch.ops.onednn.no_such_operator


@pytest.fixture
def fresh() -> Iterator[None]:
    """Kernels are put to the test again, now and afterwards."""
    kernels.is_exact.cache_clear()
    yield
    kernels.is_exact.cache_clear()


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize("broken", [SaturatingMore, HalvesUp, OffByOne, Absent])
def test_a_kernel_that_is_not_exact_is_not_used(
    broken: type[kernels.Kernel], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(KERNELS, "int8", broken)
    assert not kernels.is_exact("int8")
    assert kernels.is_exact("float32")
    assert kernels.best_kernel("cpu") == "float32"


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize("layer", [LAYERS["trunk.2"], FILTERS[f"a filter of {OUTPUTS}"]], ids=str)
def test_a_kernel_that_is_wrong_for_one_shape_is_not_used(
    layer: Layer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That of a filter, which no weights file has, as well as those of the networks."""

    class WrongOnce(FloatKernel):
        def __call__(self, x: torch.Tensor) -> torch.Tensor:
            alike = (self.layer.kernel, self.layer.out) == (layer.kernel, layer.out)
            return super().__call__(x) ^ int(alike)

    monkeypatch.setitem(KERNELS, "int8", WrongOnce)
    assert not kernels.is_exact("int8")
    assert kernels.best_kernel("cpu") == "float32"


@pytest.mark.usefixtures("fresh")
def test_sums_of_pairs_in_16_bits_are_exact_for_activations_of_seven(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The limits of the format on any machine, as older processors have them."""
    monkeypatch.setitem(KERNELS, "int8", Saturating)
    assert kernels.is_exact("int8")
    assert kernels.best_kernel("cpu") == "int8"
    assert not exact_with_eight_bits("int8")


@pytest.mark.usefixtures("fresh")
def test_the_fast_kernel_is_used_where_it_is_exact() -> None:
    skip_unless_there("int8")
    assert kernels.best_kernel("cpu") == "int8"
    assert all(kernels.is_exact(name) for name in KERNELS)


def only(*exact: tuple[str, str]) -> Any:
    """A stand-in for ``is_exact``: what is exact on which device."""
    return lambda name, device="cpu": (name, device) in exact


class Chosen:
    """A stand-in for ``Runner`` that tells what was chosen."""

    def __init__(self, model: object, rate: int, kernel: str, device: str, fine: int) -> None:
        self.rate, self.kernel, self.device = rate, kernel, device


@pytest.fixture
def choice(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A machine with CUDA, of which tests say what is exact there."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(learned, "Runner", Chosen)
    monkeypatch.setattr(learned, "_model", lambda path: path)
    return monkeypatch


def chosen(device: str) -> tuple[str, str]:
    found: Any = learned.runner(Path("weights"), 5, device)
    assert found.rate == 5
    return found.kernel, str(found.device)


def test_a_device_that_is_exact_is_used(choice: pytest.MonkeyPatch) -> None:
    choice.setattr(kernels, "is_exact", only(("int8", "cpu"), ("matrix", "cuda")))
    assert chosen("auto") == chosen("cuda") == ("matrix", "cuda")
    assert chosen("cpu") == ("int8", "cpu")
    choice.setattr(torch.cuda, "is_available", lambda: False)
    assert chosen("auto") == ("int8", "cpu")


def test_a_device_that_is_not_exact_is_left_or_refused(choice: pytest.MonkeyPatch) -> None:
    choice.setattr(kernels, "is_exact", only(("float32", "cpu")))
    assert chosen("auto") == chosen("cpu") == ("float32", "cpu")
    with pytest.raises(DeviceError, match=r"^device cuda: [^\n]*; use --device cpu$"):
        chosen("cuda")


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda"])
def test_a_machine_that_is_not_exact_is_refused(choice: pytest.MonkeyPatch, device: str) -> None:
    choice.setattr(kernels, "is_exact", only())
    with pytest.raises(DeviceError, match=r"^device (cpu|cuda): [^\n]*; "):
        chosen(device)


@pytest.mark.usefixtures("fresh")
def test_a_machine_without_an_exact_kernel_is_found_out(choice: pytest.MonkeyPatch) -> None:
    choice.setattr(torch.cuda, "is_available", lambda: False)
    choice.setattr(kernels, "KERNELS", {**KERNELS, "int8": OffByOne, "float32": HalvesUp})
    with pytest.raises(DeviceError, match="does not compute the same integers"):
        chosen("auto")
