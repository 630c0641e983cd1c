"""InvISP: a network that renders a raw to sRGB and, run backwards, gives the raw again.

Xing, Qian, Chen, "Invertible Image Signal Processing", CVPR 2021: eight blocks, each an invertible
1x1 convolution (Kingma, Dhariwal, "Glow", NeurIPS 2018) and an affine coupling whose functions are
dense blocks of five convolutions. Raws are balanced and gamma-compressed before. A simulated JPEG
stands between both directions in training (the paper's "Differentiable JPEG Simulator"), and the
loss is L1 of the rendering plus L1 of the raw.

The paper has a network for each camera, and takes the camera's white balance as given. Here
cameras of the comparison are not trained on, so ``encode`` writes the 3x3 matrix that brings what
the network gives back to the camera's colours: 36 bytes are all the metadata.

Pictures can be of two kinds. Those that the network itself rendered (``InvISP.render``) are what
the paper inverts. Others are inverted as if the network had rendered them.
"""

from __future__ import annotations

import math
import struct
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from .interface import WHITE, decibels, pixels, to_planes, to_samples

BLOCKS = 8
GROWTH = 32
"""Channels that each convolution of a dense block adds."""

REACH = 5
"""Pixels around that one of a dense block's output depends on."""

CLAMP = 0.8
"""Magnitude of the logarithm of a coupling's scale at most."""

GAMMA = 2.2
HARMONICS = 10
"""Terms of the Fourier series that stands for rounding."""

STRIP = 1 << 18
"""Pixels that a dense block works on at a time where no gradients are needed."""

_HEAD = struct.Struct("<9f")

_RIDGE = 1e-3
"""How much the matrix between raw and picture is drawn to a diagonal one."""

_TO_YCBCR = (  # JFIF 1.02
    (0.299, 0.587, 0.114),
    (-0.168736, -0.331264, 0.5),
    (0.5, -0.418688, -0.081312),
)
_LUMA_STEPS = (  # ITU-T T.81, table K.1, 8x8, row by row
    *(16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55),
    *(14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62),
    *(18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92),
    *(49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99),
)
_CHROMA_STEPS = (  # table K.2
    *(17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99),
    *(24, 26, 56, 99, 99, 99, 99, 99, 47, 66, 99, 99, 99, 99, 99, 99),
    *(99,) * 32,
)


class DenseBlock(nn.Module):
    """Five 3x3 convolutions, each of which sees the outputs of all before it.

    The last begins as zero, so that couplings begin as the identity.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        seen = [inputs + GROWTH * n for n in range(REACH)]
        given = [GROWTH] * (REACH - 1) + [outputs]
        self.convolutions = nn.ModuleList(
            nn.Conv2d(i, o, 3, padding=1) for i, o in zip(seen, given, strict=True)
        )
        for layer in self.convolutions:
            assert isinstance(layer, nn.Conv2d) and layer.bias is not None
            nn.init.xavier_normal_(layer.weight)
            nn.init.zeros_(layer.bias)
        nn.init.zeros_(self.convolutions[-1].weight)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, H, W).

        Without gradients in strips of rows, which overlap by ``REACH``: zeros stand beyond the
        picture alone, so that strips change nothing but the rounding of floats.
        """
        height = x.shape[2]
        rows = max(1, STRIP // (x.shape[0] * x.shape[3]))
        if torch.is_grad_enabled() or rows >= height:
            return self._whole(x)
        parts = []
        for top in range(0, height, rows):
            first = max(0, top - REACH)
            part = self._whole(x[:, :, first : top + rows + REACH])
            parts.append(part[:, :, top - first : top - first + min(rows, height - top)])
        return torch.cat(parts, 2)

    def _whole(self, x: Tensor) -> Tensor:
        *hidden, last = self.convolutions
        for layer in hidden:
            x = torch.cat((x, F.leaky_relu(layer(x), 0.2)), 1)
        y: Tensor = last(x).float()
        return y


class Mixing(nn.Module):
    """An invertible 1x1 convolution of three channels: a permutation times L times U.

    lower, upper: (3,), what L and U have below and above their diagonals. scale: (3,), logarithms
    of U's diagonal. permuted: whether channels change places before anything is learned.
    """

    lower_left: Tensor
    permutation: Tensor

    def __init__(self, permuted: bool) -> None:
        super().__init__()
        self.lower, self.upper, self.scale = (nn.Parameter(torch.zeros(3)) for _ in range(3))
        self.register_buffer("permutation", torch.eye(3).roll(int(permuted), 0), persistent=False)
        self.register_buffer("lower_left", torch.tril_indices(3, 3, -1), persistent=False)

    def matrix(self) -> Tensor:
        """float32 (3, 3)."""
        low, high = self.lower_left
        unit = torch.eye(3, device=self.lower.device)
        lower = unit.index_put((low, high), self.lower)
        upper = torch.diag(self.scale.exp()).index_put((high, low), self.upper)
        return self.permutation @ lower @ upper

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) to the same shape."""
        return mixed(x, self.matrix())

    def inverse(self, y: Tensor) -> Tensor:
        """What ``forward`` makes this of."""
        # double: eight inverses in a row multiply their errors
        return mixed(y, torch.linalg.inv(self.matrix().double()).float())


class Coupling(nn.Module):
    """A mixing and an affine coupling: one channel is shifted by what the other two give, and
    these are scaled and shifted by what that one then gives."""

    def __init__(self, permuted: bool) -> None:
        super().__init__()
        self.mixing = Mixing(permuted)
        self.first = DenseBlock(2, 1)
        self.shift = DenseBlock(1, 2)
        self.scale = DenseBlock(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) to the same shape."""
        one, two = self.mixing(x).split((1, 2), 1)
        one = one + self.first(two)
        two = two * self._factor(one) + self.shift(one)
        return torch.cat((one, two), 1)

    def inverse(self, y: Tensor) -> Tensor:
        """What ``forward`` makes this of."""
        one, two = y.split((1, 2), 1)
        two = (two - self.shift(one)) / self._factor(one)
        one = one - self.first(two)
        return self.mixing.inverse(torch.cat((one, two), 1))

    def _factor(self, one: Tensor) -> Tensor:
        # tanh(s / 2) is the paper's 2 sigmoid(s) - 1
        return torch.exp(CLAMP * torch.tanh(self.scale(one) / 2))


class InvertibleNetwork(nn.Module):
    """From gamma-compressed raws to pictures and back: float32 (B, 3, H, W).

    Mixings begin as permutations that cancel out, so that training begins with the identity.
    """

    def __init__(self) -> None:
        super().__init__()
        whole = BLOCKS - BLOCKS % 3
        self.blocks = nn.ModuleList(Coupling(number < whole) for number in range(BLOCKS))

    def forward(self, x: Tensor) -> Tensor:
        """The picture of a raw."""
        for block in self.blocks:
            x = block(x)
        return x

    def inverse(self, y: Tensor) -> Tensor:
        """The raw of a picture: ``forward`` undone, but for the rounding of floats."""
        for block in reversed(self.blocks):
            assert isinstance(block, Coupling)
            y = block.inverse(y)
        return y


def mixed(x: Tensor, matrix: Tensor) -> Tensor:
    """Colours (B, 3, H, W) times a matrix (3, 3) or (B, 3, 3)."""
    matrix = matrix.expand(len(x), 3, 3)[..., None, None]
    return sum((matrix[:, :, c] * x[:, c : c + 1] for c in range(3)), torch.zeros_like(x))


def compressed(light: Tensor) -> Tensor:
    """Linear light as the network has it."""
    return light.clamp(min=0) ** (1 / GAMMA)


def expanded(values: Tensor) -> Tensor:
    """The inverse of ``compressed``."""
    return values.clamp(min=0) ** GAMMA


def balance(raw: Tensor, picture: Tensor) -> Tensor:
    """The matrix from each raw to linear light like its picture's: (B, 3, 3).

    It stands for the white balance and the colours of the camera. Least squares, drawn to a
    diagonal matrix where a patch has too few colours to tell.

    raw, picture: float32 (B, 3, H, W), 0..1.
    """
    x, y = (part.double().flatten(2) for part in (raw, expanded(picture)))
    gains = (y.mean(2) + 1e-4) / (x.mean(2) + 1e-4)
    near = torch.diag_embed(gains)
    square = x @ x.mT / x.shape[2]
    strength = _RIDGE * square.diagonal(dim1=1, dim2=2).mean(1)[:, None, None] + 1e-9
    square = square + strength * torch.eye(3, dtype=square.dtype, device=square.device)
    product = y @ x.mT / x.shape[2] + strength * near
    return torch.linalg.solve(square, product.mT).mT.float()


def fourier_round(x: Tensor) -> Tensor:
    """Nearly rounded, with a gradient: x - round(x) is a Fourier series, which is cut off."""
    rest = torch.zeros_like(x)
    for k in range(1, HARMONICS + 1):
        rest = rest + (-1) ** (k + 1) / k * torch.sin(2 * math.pi * k * x)
    return x - rest / math.pi


def steps(quality: int) -> Tensor:
    """The steps of a JPEG's luma and chroma as libjpeg scales them: float32 (2, 8, 8)."""
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    tables = torch.tensor((_LUMA_STEPS, _CHROMA_STEPS)).reshape(2, 8, 8)
    return ((tables * scale + 50) // 100).clamp(1, 255).float()


def simulated_jpeg(picture: Tensor, quality: int) -> Tensor:
    """What a JPEG, 4:2:0, makes of pictures (B, 3, H, W), 0..1, with gradients."""
    height, width = picture.shape[2:]
    padded = F.pad(picture, (0, -width % 16, 0, -height % 16), mode="replicate")
    to_ycbcr = torch.tensor(_TO_YCBCR, device=picture.device)
    luma, chroma = mixed(255 * padded, to_ycbcr).split((1, 2), 1)
    luma_steps, chroma_steps = steps(quality).to(picture.device)
    luma = _requantised(luma - 128, luma_steps) + 128
    chroma = _requantised(F.avg_pool2d(chroma, 2), chroma_steps)
    chroma = F.interpolate(chroma, scale_factor=2, mode="bilinear")
    back = mixed(torch.cat((luma, chroma), 1), torch.linalg.inv(to_ycbcr)) / 255
    return back[:, :, :height, :width].clamp(0, 1)


def _requantised(x: Tensor, table: Tensor) -> Tensor:
    """Planes (B, C, H, W) whose blocks' DCT was rounded to steps (8, 8)."""
    batch, channels, height, width = x.shape
    place = torch.arange(8, device=x.device)
    basis = torch.cos(math.pi / 8 * place[:, None] * (place + 0.5)) / 2
    basis[0] /= math.sqrt(2)
    cells = x.reshape(batch, channels, height // 8, 8, width // 8, 8).transpose(3, 4)
    coefficients = fourier_round(basis @ cells @ basis.T / table) * table
    return (basis.T @ coefficients @ basis).transpose(3, 4).reshape(x.shape)


class InvISP:
    """The trained network as a system of the comparison.

    weights: safetensors of an ``InvertibleNetwork``; None for one that is not trained. device:
    where it computes. ValueError for other weights.

    A picture may have any size: whole ones of 1.5 megapixels take less than 1 GB. As it computes
    with floats, decoding gives the same result again on the same machine only.
    """

    name = "InvISP"

    def __init__(self, weights: Path | None, device: str = "cpu") -> None:
        self.network = InvertibleNetwork()
        if weights is not None:
            try:
                self.network.load_state_dict(load_file(weights))
            except (RuntimeError, SafetensorError) as error:
                raise ValueError(f"{weights}: is not a network of InvISP") from error
        self.network.eval().to(device)
        self._device = device

    def encode(self, raw: np.ndarray, picture: bytes) -> bytes:
        """The matrix, 36 bytes, with which what ``decode`` gives is nearest to the raw.

        raw: uint16 (H, W, 3). picture: a file that ``render``, or anything else, made of it.
        """
        found = self._light(picture)[0].flatten(1).double().numpy()
        wanted = raw.reshape(-1, 3).astype(np.float64) / WHITE
        if found.shape[1] != len(wanted):
            raise ValueError("the picture is not of the raw's size")
        matrix = np.linalg.lstsq(found.T, wanted, rcond=None)[0].T
        return _HEAD.pack(*matrix.flatten())

    def decode(self, data: bytes, picture: bytes) -> np.ndarray:
        """The raw, uint16 (H, W, 3); ValueError for data that is not a matrix."""
        if len(data) != _HEAD.size:
            raise ValueError(f"InvISP writes {_HEAD.size} bytes, but these are {len(data)}")
        matrix = torch.tensor(_HEAD.unpack(data)).reshape(3, 3)
        if not torch.isfinite(matrix).all():
            raise ValueError("a number of the matrix is not finite")
        return to_samples(mixed(self._light(picture), matrix))

    @torch.no_grad()
    def render(self, raw: np.ndarray, picture: bytes | None = None) -> np.ndarray:
        """The network's own rendering of a raw, uint16 (H, W, 3): uint8 (H, W, 3).

        picture: a rendering of it whose white balance and exposure this one is to have; without
        it, the raw is taken to be balanced.
        """
        light = to_planes(raw)
        if picture is not None:
            light = mixed(light, balance(light, to_planes(pixels(picture))))
        shown = self.network(compressed(light).to(self._device))[0].clamp(0, 1).cpu()
        whole = torch.round(255 * shown).to(torch.uint8)
        return whole.permute(1, 2, 0).contiguous().numpy()

    @torch.no_grad()
    def _light(self, picture: bytes) -> Tensor:
        """Linear light of a picture's raw, balanced: float32 (1, 3, H, W)."""
        shown = to_planes(pixels(picture)).to(self._device)
        return expanded(self.network.inverse(shown)).cpu()


class InvISPTraining:
    """How ``InvertibleNetwork`` is trained.

    own: the inverse learns from the network's own rendering, through a simulated JPEG, as in the
    paper; else from the pictures that are given, which is the easier way to what inverts them.
    qualities: of simulated JPEGs, one drawn for each batch; none where pictures are saved without
    loss, and then they are rounded to 8 bits only.
    """

    name = "InvISP"

    def __init__(
        self, own: bool = True, qualities: tuple[int, ...] = (90,), patch: int = 48
    ) -> None:
        self.network = InvertibleNetwork()
        self.own, self.qualities, self.patch = own, qualities, patch

    def loss(
        self, raw: Tensor, picture: Tensor, progress: float
    ) -> tuple[Tensor, dict[str, float]]:
        """L1 of the rendering plus L1 of the gamma-compressed raw.

        raw, picture: float32 (B, 3, h, w), 0..1. progress: does not matter. Figures: both L1, and
        the PSNR of both in dB, that of the raw in balanced linear light.
        """
        light = mixed(raw, balance(raw, picture)).clamp(min=0)
        wanted = compressed(light)
        rendered = self.network(wanted).clamp(0, 1)
        restored = self.network.inverse(self._saved(rendered) if self.own else picture)
        rendering, inversion = F.l1_loss(rendered, picture), F.l1_loss(restored, wanted)
        figures = {
            "rendering": float(rendering.detach()),
            "inversion": float(inversion.detach()),
            "picture_psnr": _psnr(rendered, picture),
            "psnr": _psnr(expanded(restored).clamp(0, 1), light.clamp(max=1)),
        }
        return rendering + inversion, figures

    def _saved(self, picture: Tensor) -> Tensor:
        if not self.qualities:
            return fourier_round(255 * picture) / 255
        number = int(torch.randint(len(self.qualities), ()))
        return simulated_jpeg(picture, self.qualities[number])


def _psnr(x: Tensor, y: Tensor) -> float:
    return decibels(float(F.mse_loss(x.detach(), y)))
