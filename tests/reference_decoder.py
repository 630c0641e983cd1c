"""A second decoder of sidecars, written from docs/FORMAT.md alone. Not a test itself.

It shares no code with the package, prefers the document's words to speed, and
follows the document's sections in their order. Entropy coding and all values
of the tone layer are integers of Python; numpy holds the pixels, and computes
the mosaic row by row, and the network layer by layer, in 64-bit integers.
"""

from __future__ import annotations

import hashlib
import json
import lzma
import math
import re
import struct
import unicodedata
import zlib
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate, product

import numpy as np

Tag = tuple[int, int, int, bytes]
Rows = dict[tuple[int, ...], list[int]]


class FormatError(Exception):
    """The sidecar breaks the format; the message is the number in the section Errors."""


def require(condition: bool, error: str) -> None:
    if not condition:
        raise FormatError(error)


@dataclass
class Decoded:
    """What a sidecar and its JPEG give: the samples, and the chunks read."""

    samples: np.ndarray
    head: Head
    alignment: Alignment
    tone: Tone
    latents: Latents | None
    tags: list[Tag]


def decode(sidecar: bytes, jpeg: np.ndarray, models: Mapping[str, bytes] | None = None) -> Decoded:
    """The mosaic of a sidecar and the pixels of its JPEG: uint8 of (rows, columns, 3).

    models: the weights files that there are, by the model's id.
    """
    chunks = read_chunks(sidecar)
    head = Head(chunks["HEAD"])
    require(bool(head.model_id) == ("LATN" in chunks), "E20")
    weights = (models or {}).get(head.model_id, b"")
    if head.model_id:
        require(hashlib.sha256(weights).digest()[:16] == head.model_hash, "E16")
    tags = read_tags(chunks["tags"]) if "tags" in chunks else []
    require(jpeg.shape == (head.jpeg_height, head.jpeg_width, 3), "E17")
    require(jpeg_digest(jpeg) == head.jpeg_digest, "E17")
    alignment = Alignment(chunks["ALGN"])
    guide = Guide(jpeg, alignment, head)
    tone = Tone(chunks["TONE"], head, guide.reached())
    latents = Latents(chunks["LATN"], head) if "LATN" in chunks else None
    model = Model(weights) if "LATN" in chunks else None
    seen, values = predicted(head, guide, tone)
    if latents is not None and model is not None:
        values = latents.refined(model, seen, values, tone.reached)
    samples = expanded(head, values)
    digest = hashlib.sha256(samples.astype("<u2").tobytes()).digest()
    require(digest[:16] == head.mosaic_digest, "E18")
    return Decoded(samples, head, alignment, tone, latents, tags)


# File structure


def read_chunks(data: bytes) -> dict[str, bytes]:
    """The payloads of the chunks that this version knows."""
    require(0 < len(data) <= 2**30, "E1")
    signature = bytes.fromhex("89 52 4D 54 0D 0A 1A 0A")
    if data[:8] != signature[: len(data)]:
        raise FormatError("E3" if data[1:4] == signature[1:4] else "E2")
    require(len(data) >= 12, "E4")
    version, reserved = struct.unpack_from("<HH", data, 8)
    require(version <= 1, "E5")
    require(version == 1 and reserved == 0, "E6")

    chunks: list[tuple[str, bytes]] = []
    start = position = 12
    while not chunks or chunks[-1][0] != "TAIL":
        start = position
        name = data[start : start + 4]
        require(re.fullmatch(rb"[A-Za-z]*", name) is not None, "E7")
        require(len(data) >= start + 8, "E4")
        (length,) = struct.unpack_from("<I", data, start + 4)
        position = start + 8 + length + 4
        require(len(data) >= position, "E4")
        (crc,) = struct.unpack_from("<I", data, position - 4)
        require(crc == zlib.crc32(data[start : position - 4]), "E8")
        chunks.append((name.decode("ascii"), data[start + 8 : position - 4]))
        require(len(chunks) <= 256, "E12")
    require(chunks[-1][1] == hashlib.sha256(data[:start]).digest()[:8], "E9")
    require(position == len(data), "E10")

    order = ["HEAD", "ALGN", "TONE", "LATN", "tags", "TAIL"]
    names = [name for name, _ in chunks]
    require(all(name in order or name[0].islower() for name in names), "E11")
    known = [name for name in names if name in order]
    require(names[0] == "HEAD", "E12")
    require(known == [name for name in order if name in known], "E12")
    require({"HEAD", "ALGN", "TONE", "TAIL"} <= set(known), "E12")
    return {name: payload for name, payload in chunks if name in order}


# HEAD


class Head:
    """The chunk HEAD."""

    def __init__(self, payload: bytes) -> None:
        self.rest = payload
        self.width, self.height = self.take("HH")
        self.raw_width, self.raw_height, self.left, self.top = self.take("HHHH")
        self.jpeg_width, self.jpeg_height = self.take("HH")
        self.white, self.largest_error, self.psnr = self.take("HHI")
        self.orientation, self.quality = self.take("BB")
        self.jpeg_digest, self.jpeg_stream_digest = self.take("16s8s")
        self.mosaic_digest, self.model_hash = self.take("16s16s")
        self.cfa_rows, self.cfa_columns = self.take("BB")
        self.cells = self.take(f"{self.cfa_rows * self.cfa_columns}B")
        (levels,) = self.take("B")
        self.black = self.take(f"{levels}H")
        self.model_id = self.take_string(64)
        self.make = self.take_string(64)
        self.model = self.take_string(64)
        self.writer = self.take_string(32)
        require(not self.rest, "E13")

        require(min(self.width, self.height, self.jpeg_width, self.jpeg_height) >= 1, "E13")
        require(self.width * self.height <= 2**29, "E13")
        pixels = self.jpeg_width * self.jpeg_height
        require(self.width * self.height <= 160 * pixels, "E13")
        require(self.left + self.width <= self.raw_width, "E13")
        require(self.top + self.height <= self.raw_height, "E13")
        require(self.white >= 1 and max(self.black) < self.white, "E13")
        require(1 <= self.orientation <= 8 and self.quality <= 5, "E13")
        require(max(self.cfa_rows, self.cfa_columns) <= 8, "E13")
        require((self.cfa_rows == 0) == (self.cfa_columns == 0), "E13")
        require(all(cell <= 2 for cell in self.cells), "E13")
        number = 3 if self.linear else len(self.cells)
        require(levels == 1 or (levels == number and len(set(self.black)) > 1), "E13")
        self.black = self.black * number if levels == 1 else self.black
        word = r"([A-Za-z0-9][A-Za-z0-9._+-]*)?"
        require(re.fullmatch(word, self.model_id) is not None, "E13")
        require(bool(self.model_id) or self.model_hash == bytes(16), "E13")
        require((self.quality == 0) == (not self.model_id), "E13")
        require(all(unicodedata.category(c) != "Cc" for c in self.make + self.model), "E13")
        require(all(" " <= c <= "~" for c in self.writer), "E13")

    def take(self, fields: str) -> tuple:
        size = struct.calcsize("<" + fields)
        require(len(self.rest) >= size, "E13")
        values = struct.unpack("<" + fields, self.rest[:size])
        self.rest = self.rest[size:]
        return values

    def take_string(self, limit: int) -> str:
        (length,) = self.take("B")
        require(length <= limit, "E13")
        (data,) = self.take(f"{length}s")
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError:
            raise FormatError("E13") from None

    @property
    def linear(self) -> bool:
        return self.cfa_rows == 0

    @property
    def colours(self) -> tuple[int, ...]:
        """The colours that the mosaic has, green first; only green if it is monochrome."""
        return tuple(c for c in (1, 0, 2) if self.linear or c in self.cells)


def jpeg_digest(jpeg: np.ndarray) -> bytes:
    size = struct.pack("<II", jpeg.shape[1], jpeg.shape[0])
    return hashlib.sha256(size + jpeg.astype(np.uint8).tobytes()).digest()[:16]


# ALGN


class Alignment:
    """The chunk ALGN."""

    def __init__(self, payload: bytes) -> None:
        require(len(payload) >= 26, "E19")
        fields = struct.unpack("<BIqIqB", payload[:26])
        self.orientation, self.step_x, self.origin_x, self.step_y, self.origin_y, kind = fields
        require(kind in (0, 1, 2, 4, 5, 6), "E19")
        n = (0, 21, 30)[kind % 4]
        require(len(payload) == 26 + 8 * n + (32 if kind >= 4 else 0), "E19")
        self.warp_x = struct.unpack(f"<{n}i", payload[26 : 26 + 4 * n]) if n else None
        self.warp_y = struct.unpack(f"<{n}i", payload[26 + 4 * n : 26 + 8 * n]) if n else None
        shifts = struct.unpack("<8i", payload[26 + 8 * n :]) if kind >= 4 else (0,) * 8
        self.shifts = (shifts[:4], (0, 0, 0, 0), shifts[4:])
        require(1 <= self.orientation <= 8, "E19")
        for step, origin in ((self.step_x, self.origin_x), (self.step_y, self.origin_y)):
            require(1677721 <= step <= 20971520, "E19")
            require(abs(origin) < 2**40, "E19")


def turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Pixels turned as the EXIF orientation says: where its row 0 and column 0 are."""
    if orientation >= 5:  # row 0 is a side: rows and columns change places
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


def keys(d: int) -> int:
    """Keys' six-point cubic convolution, times 12 n^3, at the distance d / n."""
    n = 64
    if d < n:
        return 16 * d**3 - 28 * d**2 * n + 12 * n**3
    if d < 2 * n:
        return -7 * d**3 + 36 * d**2 * n - 59 * d * n**2 + 30 * n**3
    if d < 3 * n:
        return d**3 - 8 * d**2 * n + 21 * d * n**2 - 18 * n**3
    return 0


def kernel() -> list[list[int]]:
    """K[phase][t]: the weights of the six pixels around a position."""
    n, rows = 64, []
    for p in range(n):
        distances = [abs(64 * (t - 2) - p) for t in range(6)]
        row = [(512 * keys(d) + 12 * n**3) // (24 * n**3) for d in distances]
        row[2 if p <= 32 else 3] += 256 - sum(row)
        rows.append(row)
    return rows


TERMS = [(i, j) for i in range(6) for j in range(6 - i)]
CONE_TERMS = [(i, j) for i in range(4) for j in range(4 - i)][1:]


def polynomial(coefficient: dict[tuple[int, int], int], degree: int, x: int, y: int) -> int:
    """P of a degree, for X and Y."""
    d = 0
    for i in range(degree, -1, -1):
        line = 0
        for j in range(degree - i, -1, -1):
            line = (line * y + 2**14) // 2**15 + coefficient[i, j]
        d = (d * x + 2**14) // 2**15 + line
    return d


def displacement(warp: tuple[int, ...] | None, x: int, y: int) -> int:
    """D, for X and Y."""
    if warp is None:
        return 0
    d = polynomial(dict(zip(TERMS, warp[:21], strict=True)), 5, x, y)
    if len(warp) > 21:
        cone = dict(zip(CONE_TERMS, warp[21:], strict=True))
        cone[0, 0] = 0
        d += (math.isqrt(x * x + y * y) * polynomial(cone, 3, x, y) + 2**14) // 2**15
    return d


class Guide:
    """The JPEG resampled to the sites of the mosaic."""

    def __init__(self, jpeg: np.ndarray, alignment: Alignment, head: Head) -> None:
        self.pixels = turned(jpeg, alignment.orientation).astype(np.int64)
        self.h, self.w = self.pixels.shape[:2]
        self.alignment = alignment
        self.width, self.height = head.width, head.height
        self.kernel = np.array(kernel())

    def places(self, y: int, columns: range) -> tuple[np.ndarray, np.ndarray]:
        """U and V of the sites of a row, computed in integers of Python."""
        a, longer = self.alignment, max(self.width, self.height)
        u, v = [], []
        down = (2 * y - (self.height - 1)) * 2**15 // longer
        for x in columns:
            across = (2 * x - (self.width - 1)) * 2**15 // longer
            u.append(a.step_x * x + a.origin_x + 2**8 * displacement(a.warp_x, across, down))
            v.append(a.step_y * y + a.origin_y + 2**8 * displacement(a.warp_y, across, down))
        return np.array(u, np.int64), np.array(v, np.int64)

    def around(self, place: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        """The six pixels of one axis around each place, and their weights: (n, 6) each."""
        position = (place + 2**17) // 2**18
        pixels = position[:, None] // 64 - 2 + np.arange(6)
        return np.clip(pixels, 0, count - 1), self.kernel[position % 64]

    def row(self, y: int, columns: range) -> np.ndarray:
        """G[c][y][x] of these columns, as an array (columns, 3)."""
        green_u, green_v = self.places(y, columns)
        x = np.array(columns, np.int64)
        g = np.zeros((len(columns), 3), np.int64)
        for c, (step_x, origin_x, step_y, origin_y) in enumerate(self.alignment.shifts):
            pixels_x, weights_x = self.around(green_u + step_x * x + origin_x, self.w)
            pixels_y, weights_y = self.around(green_v + step_y * y + origin_y, self.h)
            for t in range(6):
                total = np.zeros(len(columns), np.int64)
                for s in range(6):
                    total += weights_y[:, s] * self.pixels[pixels_y[:, s], pixels_x[:, t], c]
                g[:, c] += weights_x[:, t] * ((total + 8) // 16)
        return np.clip((g + 128) // 256, 0, 4080)

    def reached(self) -> np.ndarray:
        """Which sites the JPEG reaches, as an array (height, width)."""
        a = self.alignment
        rows = []
        for y in range(self.height):
            u, v = self.places(y, range(self.width))
            inside_x = (u >= -4 * a.step_x) & (u <= (self.w - 1) * 2**24 + 4 * a.step_x)
            inside_y = (v >= -4 * a.step_y) & (v <= (self.h - 1) * 2**24 + 4 * a.step_y)
            rows.append(inside_x & inside_y)
        return np.array(rows)


# TONE

TABLE_RATIOS = (2, 8, 24, 52, 72, 92, 104, 120, 152, 176, 196, 218, 231, 242)
THRESHOLDS = (1, 3, 6, 11, 18, 28, 42, 62, 90, 130, 190, 270, 400)


def geo(r: int, n: int) -> list[int]:
    w = [2**40]
    for _ in range(24):
        w.append(w[-1] * r // 256)
    w.append(2 * (w[24] * r // (256 - r)))
    total = w[0] + 2 * sum(w[1:25]) + w[25]
    return [value * n // total for value in w]


def tone_tables() -> list[list[int]]:
    """The frequencies of the residuals -24..24 and of the escape, for each table."""
    tables = []
    for r in TABLE_RATIOS:
        near, far = geo(r, 62212), geo(244, 3274)
        of_size = [1 + near[k] + far[k] for k in range(26)]
        frequencies = [of_size[abs(k)] for k in range(-24, 25)] + [of_size[25]]
        frequencies[24] += 2**16 - sum(frequencies)
        tables.append(frequencies)
    return tables


def table_of(activity: int) -> int:
    return sum(activity >= threshold for threshold in THRESHOLDS)


def int32(value: int) -> int:
    """The value modulo 2^32, as a signed integer."""
    return (value + 2**31) % 2**32 - 2**31


class Tone:
    """The chunk TONE: filter taps, and the colour tables, gain grids and border grids."""

    def __init__(self, payload: bytes, head: Head, reached: np.ndarray) -> None:
        require(len(payload) >= 17, "E19")
        *self.taps, table_step, gain_step, border_step, self.shift = struct.unpack_from(
            "<5h3HB", payload
        )
        require(all(-1024 <= tap <= 1024 for tap in self.taps), "E19")
        require(min(table_step, gain_step, border_step) >= 1, "E19")
        require(3 <= self.shift <= 12, "E19")
        self.reached = reached
        self.tables = tone_tables()
        self.decoder = RangeDecoder(payload[17:])
        order = head.colours
        first = order[0]

        self.table: dict[int, np.ndarray] = {}
        green: Rows = {}
        for c in order:
            values, residuals = self.colour_table(None if c == first else green)
            green = residuals if c == first else green
            t = np.array([[values[i, j] for j in range(9)] for i in range(9)])
            # From (the others in the order R, G, B; the colour's own) to (R, G, B).
            t = np.moveaxis(t, 2, c)
            self.table[c] = scaled(t, table_step, 0, 65535)

        self.gain: dict[int, np.ndarray] = {}
        green_values: Rows = {}
        for c in order:
            values, residuals = self.gain_grid(None if c == first else (green_values, green))
            if c == first:
                green_values, green = values, residuals
            q = np.array([[values[level, y] for y in range(9)] for level in range(4)])
            self.gain[c] = scaled(q, gain_step, 4096, 32767)

        self.border: dict[int, np.ndarray] = {}
        coded = border_nodes(head, reached, self.shift)
        require(sum(map(sum, coded)) <= 2**14, "E19")
        for c in order if not reached.all() else ():
            values, residuals = self.border_grid(
                coded, None if c == first else (green_values, green)
            )
            if c == first:
                green_values, green = values, residuals
            b = np.array([values[y,] for y in range(len(coded))])
            self.border[c] = scaled(b, border_step, 0, 46340)
        self.decoder.end()

    def call(self, activities: list[int] | None, count: int) -> list[int]:
        """The residuals of one row; without activities all have table 13."""
        if activities is None:
            return self.decoder.call(self.tables, [13] * count)
        return self.decoder.call(self.tables, [table_of(activity) for activity in activities])

    def colour_table(self, green: Rows | None) -> tuple[Rows, Rows]:
        values: Rows = {}
        e: Rows = {}
        none = [0] * 9
        for i, j in product(range(9), range(9)):
            if i == 0 and j == 0:
                e[i, j] = self.call(None, 9)
                values[i, j] = chained(e[i, j])
                continue
            if i == 0 and j == 1:
                predicted = values[0, 0]
            elif i == 0:
                predicted = combine(lambda a, b: 2 * a - b, values[0, j - 1], values[0, j - 2])
            elif j == 0 and i == 1:
                predicted = values[0, 0]
            elif j == 0:
                predicted = combine(lambda a, b: 2 * a - b, values[i - 1, 0], values[i - 2, 0])
            else:
                predicted = combine(
                    lambda a, b, d: a + b - d,
                    values[i - 1, j],
                    values[i, j - 1],
                    values[i - 1, j - 1],
                )
            e1, e2 = e.get((i - 1, j), none), e.get((i, j - 1), none)
            o = combine(lambda a, b: (a + b) // 2, e1, e2) if green is None else green[i, j]
            e[i, j] = self.call(combine(weighted, e1, e2, o), 9)
            values[i, j] = combine(lambda p, r: p + r, predicted, e[i, j])
        return values, e

    def gain_grid(self, green: tuple[Rows, Rows] | None) -> tuple[Rows, Rows]:
        values: Rows = {}
        e: Rows = {}
        none = [0] * 12
        for level, y in product(range(4), range(9)):
            near = [values.get((level, y - 1)), values.get((level - 1, y))]
            if green is not None:
                near.append(green[0][level, y])
            near = [row for row in near if row is not None]
            predicted = combine(lambda *q: int32(sum(q)) // len(q), *near) if near else none
            e1, e2 = e.get((level - 1, y), none), e.get((level, y - 1), none)
            o = combine(lambda a, b: (a + b) // 2, e1, e2) if green is None else green[1][level, y]
            e[level, y] = self.call(combine(weighted, e1, e2, o), 12)
            values[level, y] = combine(lambda p, r: p + r, predicted, e[level, y])
        return values, e

    def border_grid(
        self, coded: list[list[bool]], green: tuple[Rows, Rows] | None
    ) -> tuple[Rows, Rows]:
        """Nodes that are not coded have the value 0 and the residual 0."""
        values: Rows = {}
        e: Rows = {}
        for y, row in enumerate(coded):
            values[y,], e[y,] = [0] * len(row), [0] * len(row)
            nodes = [x for x in range(len(row)) if row[x]]
            if not nodes:
                continue
            above = [y > 0 and coded[y - 1][x] for x in nodes]
            activities, predicted = [], []
            for x, is_above in zip(nodes, above, strict=True):
                a = abs(e[y - 1,][x]) if is_above else 64
                activities.append(32 * a if green is None else 10 * a + 20 * abs(green[1][y,][x]))
                prediction = 0
                if is_above:
                    prediction = values[y - 1,][x]
                    if green is not None:
                        prediction += green[0][y,][x] - green[0][y - 1,][x]
                predicted.append(prediction)
            residuals = self.call(activities, len(nodes))
            if any(above):
                new = combine(lambda p, r: p + r, predicted, residuals)
            else:
                new = chained(residuals)
            for x, value, residual in zip(nodes, new, residuals, strict=True):
                values[y,][x], e[y,][x] = value, residual
        return values, e


def weighted(e1: int, e2: int, o: int) -> int:
    return 10 * abs(e1) + 10 * abs(e2) + 12 * abs(o)


def combine(rule: Callable[..., int], *rows: list[int]) -> list[int]:
    """The rule for each place of these rows, in signed 32-bit integers."""
    return [int32(rule(*values)) for values in zip(*rows, strict=True)]


def chained(residuals: list[int]) -> list[int]:
    return [int32(value) for value in accumulate(residuals)]


def scaled(values: np.ndarray, step: int, base: int, high: int) -> np.ndarray:
    """The base + values x step in signed 32-bit integers, clipped to 0..high."""
    total = (base + values.astype(np.int64) * step + 2**31) % 2**32 - 2**31
    return np.clip(total, 0, high)


def border_nodes(head: Head, reached: np.ndarray, shift: int) -> list[list[bool]]:
    """Which nodes of the border grid are coded."""
    side = 2**shift
    cells_down, cells_across = (head.height - 1) // side + 1, (head.width - 1) // side + 1
    coded = [[False] * (cells_across + 1) for _ in range(cells_down + 1)]
    for i, j in product(range(cells_down), range(cells_across)):
        if reached[i * side : (i + 1) * side, j * side : (j + 1) * side].all():
            continue
        for y, x in product((i, i + 1), (j, j + 1)):
            coded[y][x] = True
    return coded


# Entropy coding

LENGTHS = [32761, *(2**k for k in range(14, -1, -1)), *[1] * 8]


class RangeDecoder:
    """The range decoder of the section Entropy coding."""

    def __init__(self, data: bytes) -> None:
        require(len(data) >= 4 and len(data) % 4 == 0, "E15")
        self.words = struct.unpack(f"<{len(data) // 4}I", data)
        self.read = 0
        self.lower, self.range = 0, 2**64 - 1
        self.point = self.next_word() << 32
        self.point += self.next_word()

    def next_word(self) -> int:
        self.read += 1
        return self.words[self.read - 1] if self.read <= len(self.words) else 0

    def entry(self, left: list[int]) -> int:
        scale = self.range // 2**24
        quantile = (self.point - self.lower) % 2**64 // scale
        require(quantile < 2**24, "E15")
        k = bisect_right(left, quantile) - 1
        assert left[k] <= quantile < left[k + 1]
        self.narrow(scale, left[k], left[k + 1])
        return k

    def bits(self, n: int) -> int:
        scale = self.range // 2**24
        quantile = (self.point - self.lower) % 2**64 // scale
        require(quantile < 2**24, "E15")
        v = quantile >> (24 - n)
        self.narrow(scale, v << (24 - n), (v + 1) << (24 - n))
        return v

    def narrow(self, scale: int, left: int, right: int) -> None:
        self.lower = (self.lower + scale * left) % 2**64
        self.range = scale * (right - left)
        if self.range < 2**32:
            self.lower = (self.lower << 32) % 2**64
            self.range = self.range << 32
            self.point = (self.point << 32) % 2**64 + self.next_word()

    def call(self, tables: list[list[int]], chosen: list[int]) -> list[int]:
        """The symbols of one call; `chosen` is the table of each."""
        symbols: list[int] = []
        for start in range(0, len(chosen), 2**19):
            symbols += self.part(tables, chosen[start : start + 2**19])
        return symbols

    def part(self, tables: list[list[int]], chosen: list[int]) -> list[int]:
        symbols = [0] * len(chosen)
        of_table: dict[int, list[int]] = {}
        for position, table in enumerate(chosen):
            of_table.setdefault(table, []).append(position)
        escaped = []
        for table in sorted(of_table):
            left = cumulative(tables[table])
            k = len(tables[table])
            for position in of_table[table]:
                entry = self.entry(left)
                symbols[position] = entry - (k - 2) // 2
                if entry == k - 1:
                    escaped.append(position)
        escaped.sort()
        negative = [self.bits(1) for _ in escaped]
        lengths = [self.entry(cumulative(LENGTHS)) for _ in escaped]
        rests = [0] * len(escaped)
        for length in range(1, 24):
            for index in range(len(escaped)):
                if lengths[index] == length:
                    rests[index] = self.bits(length)
        for index, position in enumerate(escaped):
            h = (len(tables[chosen[position]]) - 2) // 2
            magnitude = h + 2 ** lengths[index] + rests[index]
            require(magnitude < 2**24, "E15")
            symbols[position] = -magnitude if negative[index] else magnitude
        return symbols

    def end(self) -> None:
        require(self.bits(16) == 0x5AA5, "E15")
        require(self.read >= len(self.words), "E15")
        require((self.point - self.lower) % 2**64 < 2**33 - 1, "E15")


def cumulative(f: list[int]) -> list[int]:
    assert sum(f) == 2**16
    size = len(f)
    c = [0, *accumulate(f)]
    return [c[k] * (2**24 - size) // 2**16 + k for k in range(size)] + [2**24]


# Mosaic

DISTANCES = ((0, 1), (1, 1), (0, 2), (1, 2), (2, 2))
COUNTS = (4, 4, 4, 8, 4)


def lerp(a: np.ndarray, b: np.ndarray, f: np.ndarray | int, n: int) -> np.ndarray:
    return a + ((b - a) * f + 2 ** (n - 1)) // 2**n


def predicted(head: Head, guide: Guide, tone: Tone) -> tuple[np.ndarray, np.ndarray]:
    """The guide at the sites, (rows, columns, 3), and the values v of the tone layer, clipped."""
    shape = (head.height, head.width, 3) if head.linear else (head.height, head.width)
    values = np.zeros(shape, np.int64)
    seen = np.zeros((head.height, head.width, 3), np.int64)
    columns = range(-2, head.width + 2)
    rows = {y: guide.row(y, columns) for y in range(-2, 2)}
    for y in range(head.height):
        rows[y + 2] = guide.row(y + 2, columns)
        f = filtered([rows[y + dy] for dy in range(-2, 3)], tone.taps)
        seen[y] = rows[y][2:-2]
        del rows[y - 2]
        for x, c, _, place in sites(head, y):
            values[place] = np.clip(toned(f[x], y, x, c, head, tone), 0, 46340)
    return seen, values


def expanded(head: Head, values: np.ndarray) -> np.ndarray:
    samples = np.zeros(values.shape, np.uint16)
    for y in range(head.height):
        for _, _, black, place in sites(head, y):
            sample = black + (values[place] ** 2 * (head.white - black) + 2**29) // 2**30
            samples[place] = np.minimum(sample, 65535)
    return samples


def sites(head: Head, y: int) -> Iterator[tuple[np.ndarray, int, int, tuple]]:
    """The samples of a row by colour and black level: columns, colour, level, and their index."""
    if head.linear:
        for c in range(3):
            yield np.arange(head.width), c, head.black[c], (y, slice(None), c)
        return
    for j in range(head.cfa_columns):
        cell = y % head.cfa_rows * head.cfa_columns + j
        x = np.arange(j, head.width, head.cfa_columns)
        yield x, head.cells[cell], head.black[cell], (y, x)


def filtered(rows: list[np.ndarray], taps: list[int]) -> np.ndarray:
    """F of one row, as an array (columns, 3), from five rows of the guide two columns wider."""
    width = len(rows[0]) - 4

    def shifted(dy: int, dx: int) -> np.ndarray:
        return rows[2 + dy][2 + dx : 2 + dx + width]

    centre = 1024 - sum(n * tap for n, tap in zip(COUNTS, taps, strict=True))
    total = centre * shifted(0, 0)
    for distance, count, tap in zip(DISTANCES, COUNTS, taps, strict=True):
        offsets = [
            (dy, dx)
            for dy, dx in product(range(-2, 3), range(-2, 3))
            if tuple(sorted((abs(dy), abs(dx)))) == distance
        ]
        assert len(offsets) == count
        total = total + tap * sum(shifted(dy, dx) for dy, dx in offsets)
    f = np.clip((total + 512) // 1024, 0, 4080)
    return f + (f + 128) // 256


def toned(f: np.ndarray, y: int, x: np.ndarray, c: int, head: Head, tone: Tone) -> np.ndarray:
    """The values v of the sites (x, y), all of the colour c, before the expansion."""
    cell = np.minimum(f // 512, 7)
    fraction = f - 512 * cell
    (r, g, b), (fr, fg, fb) = cell.T, fraction.T
    table = tone.table[c]

    def along_b(r: np.ndarray, g: np.ndarray) -> np.ndarray:
        return lerp(table[r, g, b], table[r, g, b + 1], fb, 9)

    def along_g(r: np.ndarray) -> np.ndarray:
        return lerp(along_b(r, g), along_b(r, g + 1), fg, 9)

    v = lerp(along_g(r), along_g(r + 1), fr, 9)

    row = y * (8 * 2**12) // max(head.height - 1, 1)
    i = min(row // 4096, 7)
    column = x * (11 * 2**12) // max(head.width - 1, 1)
    j = np.minimum(column // 4096, 10)
    fi, fj = row - 4096 * i, column - 4096 * j
    between_rows = lerp(tone.gain[c][:, i], tone.gain[c][:, i + 1], fi, 12)
    between_columns = lerp(between_rows[:, j], between_rows[:, j + 1], fj, 12)
    brightness = (f[:, 0] + 2 * f[:, 1] + f[:, 2] + 2) // 4 * 3
    level = np.minimum(brightness // 4096, 2)
    n = np.arange(len(x))
    gain = lerp(
        between_columns[level, n], between_columns[level + 1, n], brightness - 4096 * level, 12
    )
    v = (v * gain + 2048) // 4096

    beyond = ~tone.reached[y, x]
    if beyond.any():
        side = 2**tone.shift
        upper, lower = tone.border[c][y // side], tone.border[c][y // side + 1]
        line = lerp(upper, lower, y % side, tone.shift)
        v[beyond] = lerp(line[x // side], line[x // side + 1], x % side, tone.shift)[beyond]
    return v


# LATN

STRIPE = 6 * 2**20


@dataclass(frozen=True)
class Layer:
    inputs: int
    outputs: int
    kernel: int
    stride: int
    low: int
    high: int
    by_rate: bool


def network() -> dict[str, Layer]:
    """The table of layers: inputs, outputs, kernel, stride, range of outputs, by rate."""
    layers = {
        "trunk.0": Layer(40, 32, 3, 1, 0, 127, False),
        "trunk.1": Layer(32, 32, 3, 1, 0, 127, False),
        "down": Layer(32, 64, 2, 2, 0, 127, False),
        "trunk.2": Layer(64, 64, 3, 1, 0, 127, False),
        "trunk.3": Layer(64, 64, 3, 1, 0, 127, False),
        "hyper.0": Layer(8, 32, 3, 1, 0, 127, True),
        "hyper.1": Layer(32, 256, 1, 1, 0, 127, False),
        "base": Layer(80, 64, 3, 1, 0, 127, True),
        "up": Layer(64, 96, 1, 1, 0, 127, False),
        "detail": Layer(56, 32, 1, 1, 0, 127, True),
        "order": Layer(32, 2, 1, 1, -32767, 32767, False),
    }
    for n in range(4):
        outputs = 2 if n == 3 else 1
        if n > 0:
            layers[f"context.{n}.0"] = Layer(9, 32, 5, 1, 0, 127, False)
        layers |= {
            f"context.{n}.1": Layer(64 if n > 0 else 32, 32, 1, 1, 0, 127, True),
            f"context.{n}.2": Layer(32, 32, 1, 1, 0, 127, False),
            f"context.{n}.mean": Layer(32, outputs, 1, 1, -1023, 1023, False),
            f"context.{n}.scale": Layer(32, outputs, 1, 1, 0, 63, True),
        }
    return layers


# Channels, and the steps of the quads.
PASSES = (((0,), (0,)), ((0,), (1,)), ((3,), (0, 1)), ((1, 2), (0, 1)))

NEXT_STATE = [0, 2, 5, 7, 1, 3, 6, 4, 2, 0, 4, 6, 3, 1, 7, 5]
SHIFTS = [350, 350, 500, 1000, 2300, 5700, 9900, 25300, 9900, 5700, 2300, 1000, 500, 350, 350, 36]
EXPECTED = [
    *(2, 2, 2, 2, 3, 3, 4, 4, 5, 6, 6, 7, 9, 10, 11, 13),
    *(15, 17, 20, 23, 27, 31, 36, 41, 48, 55, 63, 73, 84, 97, 112, 129),
    *(149, 172, 199, 229, 265, 305, 352, 406, 469, 541, 624, 720, 831, 959, 1106, 1276),
    *(1472, 1699, 1960, 2261, 2609, 3010, 3473, 4007, 4623, 5334, 6155, 7101, 8193, 9452),
    *(10906, 12583),
]
AREA_SCALES = [32768, *[520] * 62, 528]

# Classes by activity and by brightness, and the targets with which there is such a shape.
SHAPES = ((1, 1, 12), (2, 1, 12), (2, 2, 8), (4, 2, 4))
SINGLE = [*[255] * 257, 1]
OCTAVES = [*[9362] * 7, 2]


@dataclass(frozen=True)
class Filter:
    """A fitted filter: what is decoded, and the targets (k, c)."""

    targets: list[tuple[int, int]]
    activity_classes: int
    brightness_classes: int
    thresholds: list[int]
    shift: int
    octaves: list[int]
    numbers: list[list[int]]

    def layer(self, a: np.ndarray) -> np.ndarray:
        """All outputs where all that they reach is in `a`, the channels 0 to 30."""
        count = self.activity_classes * self.brightness_classes * len(self.targets)
        weight = np.zeros((count, 31, 3, 3), np.int64)
        bias = np.zeros(count, np.int64)
        for p in range(count):
            for i, dy, dx in product(range(31), range(3), range(3)):
                weight[p, i, dy, dx] = self.numbers[i][9 * p + 3 * dy + dx] * 2 ** self.octaves[i]
            bias[p] = self.numbers[31][p] * 2 ** self.octaves[31] - 64 * weight[p].sum()
        bound = 127 * np.abs(weight).sum(axis=(1, 2, 3)) + np.abs(bias)
        assert bound.max() < 2**24
        return convolved(a, weight, np.full(count, self.shift), bias, 1, -2047, 2047)

    def classes(self, brightness: np.ndarray) -> np.ndarray:
        """The class of each quad, from the brightness of these and one more at each side."""
        middle = brightness[1:-1, 1:-1]
        activity = np.zeros_like(middle)
        for dy, dx in product(range(3), range(3)):
            near = brightness[dy : dy + len(middle), dx : dx + middle.shape[1]]
            activity += abs(near - middle)
        of_activity = self.thresholds[: self.activity_classes - 1]
        of_brightness = self.thresholds[self.activity_classes - 1 :]
        s = sum((threshold <= activity for threshold in of_activity), np.zeros_like(middle))
        t = sum((threshold <= middle for threshold in of_brightness), np.zeros_like(middle))
        return s * self.brightness_classes + t

    def corrected(
        self, values: np.ndarray, cells: np.ndarray, a: np.ndarray, brightness: np.ndarray
    ) -> np.ndarray:
        """v + 4 F of all sites, clipped.

        `a` and `brightness` are the channels and the brightness of the grid's quads and one more
        around.
        """
        outputs = self.layer(a)
        g = self.classes(brightness)
        height, width = values.shape
        colours = colours_of(cells, range(height), range(width))
        v = values.copy()
        for i, j in product(range(height), range(width)):
            place = self.targets.index((2 * (i % 2) + j % 2, colours[i, j]))
            y, x = i // 2, j // 2
            v[i, j] += 4 * outputs[g[y, x] * len(self.targets) + place, y, x]
        return np.clip(v, 0, 46340)


def filter_channels(a: np.ndarray, z: np.ndarray | None) -> np.ndarray:
    """The channels 0 to 30 of a filter at the grid's quads and one more around.

    `a` are the inputs of these quads, `z` the latents of the grid, None for the first filter.
    """
    known = np.full((4, *a.shape[1:]), 64)
    if z is not None:
        known = beyond(64 + np.clip(z, -63, 63), 1, 64)
    return np.concatenate([a[:23], known, a[23:27]])


FINE = (
    16384, 16208, 16033, 15860, 15689, 15520, 15353, 15188,
    15024, 14862, 14702, 14544, 14387, 14232, 14079, 13927,
)  # fmt: skip


class Latents:
    """The chunk LATN: the learned layer of all planes."""

    def __init__(self, payload: bytes, head: Head) -> None:
        self.planes = (1, 0, 2) if head.linear else (None,)
        self.head = head
        n = -(-head.height * head.width // STRIPE)
        self.stripe = 16 * -(-head.height // (16 * n))
        self.stripes = -(-head.height // self.stripe)
        p = self.stripes * len(self.planes)
        start = 2 + 8 * p
        require(len(payload) >= start, "E19")
        self.rate, self.fine = payload[:2]
        require(self.rate <= 32 and self.fine <= 15, "E19")
        means = struct.unpack(f"<{start - 2}b", payload[2:start])
        self.means = [means[8 * i : 8 * i + 8] for i in range(p)]
        self.values = payload[start:]
        self.z: list[np.ndarray] = []
        self.steps: list[np.ndarray] = []
        self.classes: list[np.ndarray] = []
        self.shifts: list[list[list[int]]] = []
        self.numbers: list[np.ndarray] = []
        self.first_filters: list[Filter | None] = []
        self.second_filters: list[Filter | None] = []

    def refined(
        self, model: Model, seen: np.ndarray, values: np.ndarray, reached: np.ndarray
    ) -> np.ndarray:
        """Better values v of all sites, from the guide and the tone layer's values."""
        self.model = model
        self.decoder = RangeDecoder(self.values)
        better = np.zeros_like(values)
        means = iter(self.means)
        for number in range(self.stripes):
            stripe = slice(self.stripe * number, self.stripe * (number + 1))
            self.photo(
                seen[stripe], values[stripe], reached[stripe], better[stripe], stripe.start, means
            )
        self.decoder.end()
        return better

    def photo(
        self,
        seen: np.ndarray,
        values: np.ndarray,
        reached: np.ndarray,
        better: np.ndarray,
        top: int,
        means: Iterator[tuple[int, ...]],
    ) -> None:
        """Puts better values of a stripe, which begins at the row `top`, into `better`."""
        height, width = seen.shape[:2]
        # Of the grid: rows and columns of quads.
        self.rows, self.columns = 8 * ((height + 15) // 16), 8 * ((width + 15) // 16)
        e = np.zeros((height, width), np.int64)
        for c in self.planes:
            plane = ... if c is None else (..., c)
            cells = np.array([[c]])
            if c is None:
                cells = np.array(self.head.cells).reshape(self.head.cfa_rows, self.head.cfa_columns)
            cells = np.roll(cells, -top, 0)
            better[plane], corrected = self.plane(
                seen, values[plane], reached, e, cells, next(means)
            )
            e = better[plane] - corrected

    def layer(self, name: str, a: np.ndarray) -> np.ndarray:
        """A layer's outputs where all that it reaches is in `a`: (channels, rows, columns)."""
        layer = self.model.layers[name]
        parts = ("weight", "shift", "bias")
        weight, shift, bias = (self.model.arrays[f"{name}.{part}"] for part in parts)
        bias = bias[self.rate if layer.by_rate else 0]
        return convolved(a, weight, shift, bias, layer.stride, layer.low, layer.high)

    def call(self, means: list[int], scales: list[int]) -> list[int]:
        """The integers of latents of one call, of these means and scales."""
        w = [(mean + 4) // 8 for mean in means]
        f = [(mean + 4) % 8 for mean in means]
        coded = [i for i, scale in enumerate(scales) if scale in self.model.first_table]
        chosen = [self.model.first_table[scales[i]] + f[i] for i in coded]
        for i, symbol in zip(coded, self.decoder.call(self.model.tables, chosen), strict=True):
            w[i] += symbol
        return w

    def plane(
        self,
        seen: np.ndarray,
        values: np.ndarray,
        reached: np.ndarray,
        e: np.ndarray,
        cells: np.ndarray,
        means: tuple[int, ...],
    ) -> tuple[np.ndarray, np.ndarray]:
        """What the latents make of a plane's values, and the corrected values.

        `cells` is the pattern of colours.
        """
        height, width = values.shape
        rows, columns = self.rows, self.columns
        q = self.model.arrays["steps"][self.rate].astype(np.int64)
        q = np.maximum((q * FINE[self.fine] + 2**13) // 2**14, 1)
        forward, back = (self.model.arrays[name].astype(np.int64) for name in ("forward", "back"))
        nodes = self.nodes(int(q[0]), height, width)
        if nodes.any():
            area = of_sites(nodes, colours_of(cells, range(height), range(width)))
            values = back[np.clip(forward[values] + area, 0, 65535)]
        first_filter = self.filter(cells)
        self.first_filters.append(first_filter)

        # 8 quads beyond the grid; `trunk` has 6, `guide` one block.
        a, brightness = surroundings(seen, values, e, reached, cells)
        trunk = self.layer("trunk.1", self.layer("trunk.0", a))
        guide = self.layer("trunk.3", self.layer("trunk.2", self.layer("down", trunk)))

        # what the filters see of them
        a, brightness = inner(a, 7), inner(brightness, 7)[0]
        p = values
        if first_filter is not None:
            p = first_filter.corrected(values, cells, filter_channels(a, None), brightness)

        v = self.hyper_latents(means)
        hyper = self.layer("hyper.1", self.layer("hyper.0", beyond(64 + 4 * v, 1, 64)))
        features = rearranged(hyper, 4)
        base = self.layer("base", np.concatenate([guide, beyond(features, 1, 0)]))
        up = rearranged(self.layer("up", base), 2)
        detail = self.layer("detail", np.concatenate([inner(trunk, 6), up]))

        scores = self.layer("order", detail)
        pattern = self.model.arrays["pattern"].astype(np.int64)
        scores += pattern[:, np.arange(rows)[:, None] % 64, np.arange(columns) % 64]
        step = np.where(scores[1] > scores[0], 1, 0)

        z = self.latents(detail, step)
        self.z.append(z)
        self.steps.append(step)

        better = np.zeros_like(values)
        for k in range(4):
            d = z[k] * q[k] // 2
            here = np.s_[k // 2 : height : 2, k % 2 : width : 2]
            r = forward[p[here]]
            r += d[: r.shape[0], : r.shape[1]]
            better[here] = back[np.clip(r, 0, 65535)]

        second_filter = self.filter(cells)
        self.second_filters.append(second_filter)
        if second_filter is not None:
            better = second_filter.corrected(better, cells, filter_channels(a, z), brightness)
        return better, values

    def nodes(self, q: int, height: int, width: int) -> np.ndarray:
        """The nodes of level 4 of a plane of this size: (3, rows, columns)."""
        h, w = (height + 1) // 2, (width + 1) // 2
        n = e = np.zeros((3, 0, 0), np.int64)
        for level, distance in enumerate((64, 32, 16, 8, 4)):
            rows, columns = (h - 1) // distance + 2, (w - 1) // distance + 2
            every = list(product(range(rows), range(columns)))
            near = [
                [level > 0 and bool(e[c][around(i), around(j)].any()) for i, j in every]
                for c in range(3)
            ]
            n = refined(n)[:, :rows, :columns] if level > 0 else np.zeros((3, rows, columns), int)
            e = np.zeros((3, rows, columns), np.int64)
            unit = max(16 * q // distance, 1)
            for c, kind in product(range(3), (False, True)):
                group = [place for place, is_near in zip(every, near[c], strict=True)
                         if is_near == kind]  # fmt: skip
                for (i, j), number in zip(group, self.group(len(group), unit), strict=True):
                    e[c, i, j] = number
            n = np.clip(n + e * unit, -(2**20), 2**20)
            self.numbers.append(e)
        return n

    def group(self, count: int, unit: int) -> list[int]:
        """The numbers of a group of nodes."""
        if count == 0:
            return []
        scale = self.scale()
        numbers = self.call([0] * count, [scale] * count)
        require(max(map(abs, numbers)) <= 2**21 // unit, "E19")
        return numbers

    def scale(self) -> int:
        """The scale of a group of nodes, or of a filter's channel."""
        (symbol,) = self.decoder.call([AREA_SCALES], [0])
        require(1 <= symbol + 32 <= 63, "E19")
        return symbol + 32

    def single(self, most: int) -> int:
        """A single number of a filter."""
        (symbol,) = self.decoder.call([SINGLE], [0])
        require(0 <= symbol + 128 <= most, "E19")
        return symbol + 128

    def filter(self, cells: np.ndarray) -> Filter | None:
        """A filter of a plane with this pattern of colours."""
        rows, columns = cells.shape
        targets = [
            (k, c)
            for k, c in product(range(4), range(3))
            if any(
                cells[(2 * y + k // 2) % rows, (2 * x + k % 2) % columns] == c
                for y, x in product(range(rows), range(columns))
            )
        ]
        shapes = [(a, b) for a, b, most in SHAPES if len(targets) <= most]
        shape = self.single(len(shapes))
        if shape == 0:
            return None
        a, b = shapes[shape - 1]
        thresholds = []
        for _ in range(a - 1 + b - 1):
            high = self.single(127)
            thresholds.append(256 * high + self.single(255))
        shift = self.single(20)
        octaves, numbers = [], []
        for i in range(32):
            scale, octave = self.scale(), 0
            if scale in self.model.first_table:  # it is not silent
                (symbol,) = self.decoder.call([OCTAVES], [0])
                octave = symbol + 3
                require(0 <= octave <= 6, "E19")
            count = a * b * len(targets) * (9 if i < 31 else 1)
            e = self.call([0] * count, [scale] * count)
            require(max(map(abs, e)) <= (127 if i < 31 else 2**22) // 2**octave, "E19")
            octaves.append(octave)
            numbers.append(e)
        return Filter(targets, a, b, thresholds, shift, octaves, numbers)

    def hyper_latents(self, means: tuple[int, ...]) -> np.ndarray:
        shape = 8, self.rows // 8, self.columns // 8
        blocks = shape[1] * shape[2]
        scales = self.model.arrays["hyper_scale"][self.rate].tolist()
        v = self.call(
            [mean for mean in means for _ in range(blocks)],
            [scale for scale in scales for _ in range(blocks)],
        )
        require(max(map(abs, v)) <= 15, "E19")
        return np.array(v).reshape(shape)

    def latents(self, detail: np.ndarray, step: np.ndarray) -> np.ndarray:
        z = np.zeros((4, self.rows, self.columns), np.int64)
        off, expected = np.zeros((2, self.rows, self.columns), np.int64)
        for n, (channels, its_steps) in enumerate(PASSES):
            context = detail
            if n > 0:
                known = self.layer(f"context.{n}.0", known_latents(z, step))
                context = np.concatenate([known, detail])
            context = self.layer(f"context.{n}.1", context)
            context = self.layer(f"context.{n}.2", context)
            mean = self.layer(f"context.{n}.mean", context)
            scale = self.layer(f"context.{n}.scale", context)
            places = [
                (c, y, x)
                for y, x in product(range(self.rows), range(self.columns))
                if step[y, x] in its_steps
                for c in channels
            ]
            classes = quad_classes(off, expected)
            means, given, of = [], [], []
            for c, y, x in places:
                output = c - channels[0]
                means.append(int(mean[output, y, x]))
                given.append(int(scale[output, y, x]))
                of.append(int(classes[y, x]))
            shifts = self.class_shifts(of, given)
            self.classes.append(classes)
            self.shifts.append(shifts)
            scales = [self.moved(s, shifts[k]) for s, k in zip(given, of, strict=True)]
            alone = [i for i, scale in enumerate(scales) if scale < 21]
            found = self.integers([means[i] for i in alone], [scales[i] for i in alone])
            for i, e in zip(alone, found, strict=True):
                z[places[i]] = 2 * e
            along = [i for i, scale in enumerate(scales) if scale >= 21]
            lanes = (len(along) + 127) // 128
            states = [0] * lanes
            for t in range(0, len(along), max(lanes, 1)):
                now = along[t : t + lanes]
                halves = [s % 2 for s in states[: len(now)]]
                moved = [means[i] + 4 * h for i, h in zip(now, halves, strict=True)]
                found = self.integers(moved, [scales[i] for i in now])
                for lane, (i, e) in enumerate(zip(now, found, strict=True)):
                    z[places[i]] = 2 * e - halves[lane]
                    states[lane] = NEXT_STATE[2 * states[lane] + e % 2]
            for place, m, s in zip(places, means, scales, strict=True):
                _, y, x = place
                off[y, x] += 16 * min(abs(4 * int(z[place]) - m), 4095)
                expected[y, x] += EXPECTED[s]
        return z

    def class_shifts(self, classes: list[int], scales: list[int]) -> list[list[int]]:
        """The shifts of each class."""
        counts = Counter(
            (k, s // 4) for k, s in zip(classes, scales, strict=True) if s in self.model.first_table
        )
        coded = [key for key in product(range(10), range(16)) if counts[key] >= 64]
        symbols = dict(zip(coded, self.decoder.call([SHIFTS], [0] * len(coded)), strict=True))
        found, before = [], [0] * 16
        for k in range(10):
            before = [shift + symbols.get((k, i), 0) for i, shift in enumerate(before)]
            require(max(map(abs, before)) <= 7, "E19")
            found.append(before)
        return found

    def integers(self, means: list[int], scales: list[int]) -> list[int]:
        """Those of latents."""
        found = self.call(means, scales)
        require(all(abs(e) < 2**14 for e in found), "E19")
        return found

    def moved(self, scale: int, shifts: list[int]) -> int:
        """The scale that is used instead of one of the network."""
        if scale not in self.model.first_table:  # it is silent
            return scale
        return min(max(scale + shifts[scale // 4], 0), 63)


def convolved(
    a: np.ndarray,
    weight: np.ndarray,
    shift: np.ndarray,
    bias: np.ndarray,
    t: int,
    low: int,
    high: int,
) -> np.ndarray:
    """The outputs of a layer of the stride t where all that it reaches is in `a`."""
    outputs, channels, kernel, _ = weight.shape
    down, across = ((n - kernel) // t + 1 for n in a.shape[1:])
    s = np.zeros((outputs, down * across), np.int64)
    for dy, dx in product(range(kernel), range(kernel)):
        reach = a[:, dy : dy + t * (down - 1) + 1 : t, dx : dx + t * (across - 1) + 1 : t]
        s += weight[:, :, dy, dx].astype(np.int64) @ reach.reshape(channels, -1)
    s += bias.astype(np.int64)[:, None]
    assert np.abs(s).max(initial=0) < 2**24
    divisor = 2 ** shift.astype(np.int64)[:, None]
    whole, twice = s // divisor, 2 * (s % divisor)
    whole += (twice > divisor) | ((twice == divisor) & (whole % 2 == 1))
    return np.clip(whole, low, high).reshape(outputs, down, across)


def around(i: int) -> slice:
    """The rows or columns of the level before that make row or column i near."""
    return slice(max(i // 2 - 1, 0), i // 2 + 2)


def refined(a: np.ndarray) -> np.ndarray:
    """Nodes of half the distance, of each colour: (3, 2 m - 1, 2 n - 1)."""
    _, m, n = a.shape
    b = np.zeros((3, m, 2 * n - 1), np.int64)
    b[:, :, ::2] = a
    b[:, :, 1::2] = (a[:, :, :-1] + a[:, :, 1:] + 1) // 2
    r = np.zeros((3, 2 * m - 1, 2 * n - 1), np.int64)
    r[:, ::2] = b
    r[:, 1::2] = (b[:, :-1] + b[:, 1:] + 1) // 2
    return r


def of_sites(nodes: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """What the nodes of level 4 add to sites of these colours, in the domain of residuals."""
    r = refined(refined(nodes))
    y, x = np.indices(colours.shape)
    return (r[colours, y // 2, x // 2] + 8) // 16


def reflected(i: int, n: int) -> int:
    while n > 1 and not 0 <= i < n:
        i = -i if i < 0 else 2 * (n - 1) - i
    return i if n > 1 else 0


def colours_of(cells: np.ndarray, y: range, x: range) -> np.ndarray:
    """The colours of sites, of the plane or beyond it."""
    rows, columns = cells.shape
    return cells[np.ix_(np.array(y) % rows, np.array(x) % columns)]


def surroundings(
    seen: np.ndarray, values: np.ndarray, e: np.ndarray, reached: np.ndarray, cells: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and brightness of the quads of the grid, and of 8 more on every side."""
    height, width = values.shape
    y, x = (range(-16, 16 * ((n + 15) // 16) + 16) for n in (height, width))
    place = np.ix_([reflected(i, height) for i in y], [reflected(i, width) for i in x])
    a = inputs(seen[place], values[place], e[place], colours_of(cells, y, x), reached[place])
    average = [(of_quads(seen[place][:, :, c]).sum(axis=0) + 2) // 4 for c in range(3)]
    return a, ((average[0] + 2 * average[1] + average[2]) // 4)[None]


def of_quads(sites: np.ndarray) -> np.ndarray:
    """The sites k = 0..3 of each quad: (4, rows / 2, columns / 2)."""
    return np.array([sites[i::2, j::2] for i, j in product(range(2), range(2))])


def inputs(
    seen: np.ndarray,
    values: np.ndarray,
    e: np.ndarray,
    colours: np.ndarray,
    reached: np.ndarray,
) -> np.ndarray:
    """The 40 inputs of the quads of some sites."""

    def clip(a: np.ndarray) -> np.ndarray:
        return np.clip(a, 0, 127)

    channels: dict[int, np.ndarray] = {}
    v, e, colours = of_quads(values), of_quads(e), of_quads(colours)
    m = (v.sum(axis=0) + 2) // 4
    for c in range(3):
        g = of_quads(seen[:, :, c])
        mean = (g.sum(axis=0) + 2) // 4
        channels[c] = mean // 32
        for k in range(4):
            channels[3 + 4 * c + k] = clip(64 + (g[k] - mean) // 8)
    for k in range(4):
        channels[15 + k] = clip(v[k] // 256)
        channels[19 + k] = clip(64 + (v[k] - m) // 32)
        channels[23 + k] = clip(64 + e[k] // 32)
        for c in range(3):
            channels[27 + 3 * k + c] = np.where(colours[k] == c, 64, 0)
    channels[39] = np.where(of_quads(reached).all(axis=0), 0, 64)
    return np.array([channels[c] for c in range(40)])


def inner(a: np.ndarray, n: int) -> np.ndarray:
    """Without n positions at each side."""
    return a[:, n:-n, n:-n]


def beyond(a: np.ndarray, n: int, value: int) -> np.ndarray:
    """With n positions more at each side, which have the value."""
    return np.pad(a, ((0, 0), (n, n), (n, n)), constant_values=value)


def rearranged(a: np.ndarray, n: int) -> np.ndarray:
    """Channels as n x n finer positions: (c n n, rows, columns) as (c, n rows, n columns)."""
    count, rows, columns = a.shape
    result = np.zeros((count // n**2, n * rows, n * columns), np.int64)
    for c, i, j in product(range(len(result)), range(n), range(n)):
        result[c, i::n, j::n] = a[n * n * c + n * i + j]
    return result


def quad_classes(off: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Of each quad, from the sums over its latents."""
    rows, columns = off.shape

    def around(sums: np.ndarray) -> np.ndarray:
        wide = np.pad(sums, 3)
        found = np.full((rows, columns), 128)
        for i, j in product(range(-3, 4), repeat=2):
            part = wide[3 + i : 3 + i + rows, 3 + j : 3 + j + columns]
            found += (4 - abs(i)) * (4 - abs(j)) * part
        return found

    ratios = np.array([6, 8, 11, 13, 16, 20, 24, 32, 45])[:, None, None]
    classes: np.ndarray = (16 * around(off) >= ratios * around(expected)).sum(0)
    return classes


def known_latents(z: np.ndarray, step: np.ndarray) -> np.ndarray:
    """The inputs of `context.n.0`, two quads beyond the grid too."""
    level = levels(z)
    size = 2 * abs(level - 64)
    first = np.where(step == 0, 127, 0)[None]
    return np.concatenate([beyond(level, 2, 64), beyond(size, 2, 0), beyond(first, 2, 0)])


def levels(z: np.ndarray) -> np.ndarray:
    result = np.full(z.shape, 64, np.int64)
    for latent in np.unique(z).tolist():
        n = 63
        while n > 0 and (2 + abs(latent)) ** 20 < 2 ** (2 * n + 19):
            n -= 1
        result[z == latent] = 64 - n if latent < 0 else 64 + n
    return result


# Weights

TYPES = {"I8": "<i1", "U8": "<u1", "I16": "<i2", "U16": "<u2", "I32": "<i4"}


class Model:
    """The arrays of a weights file, and the tables that they hold."""

    def __init__(self, data: bytes) -> None:
        (n,) = struct.unpack_from("<Q", data)
        entries = json.loads(data[8 : 8 + n])
        self.arrays = {}
        for name, entry in entries.items():
            if name != "__metadata__" and entry["dtype"] in TYPES:
                first, last = entry["data_offsets"]
                part = data[8 + n + first : 8 + n + last]
                self.arrays[name] = np.frombuffer(part, TYPES[entry["dtype"]]).reshape(
                    entry["shape"]
                )
        self.layers = network()
        for name, layer in self.layers.items():
            self.check_layer(name, layer)
        self.check("steps", "I32", (33, 4), 1, 32768)
        self.check("hyper_scale", "U8", (33, 8), 0, 63)
        self.check("pattern", "I16", (2, 64, 64), -4096, 4096)
        self.check("forward", "U16", (46341,), 0, 65535)
        self.check("back", "U16", (65536,), 0, 46340)
        self.check("tables.sizes", "U8", (64,), 0, 255)
        self.read_tables()

    def check(self, name: str, kind: str, shape: tuple[int, ...], low: int, high: int) -> None:
        require(name in self.arrays, "E16")
        array = self.arrays[name]
        require(array.dtype == np.dtype(TYPES[kind]) and array.shape == shape, "E16")
        require(low <= array.min() and array.max() <= high, "E16")

    def check_layer(self, name: str, layer: Layer) -> None:
        k, rates = layer.kernel, 33 if layer.by_rate else 1
        shape = layer.outputs, layer.inputs, k, k
        self.check(f"{name}.weight", "I8", shape, -127, 127)
        self.check(f"{name}.shift", "U8", (layer.outputs,), 0, 23)
        self.check(f"{name}.bias", "I32", (rates, layer.outputs), -(2**24), 2**24)
        weights = np.abs(self.arrays[f"{name}.weight"].astype(np.int64)).sum(axis=(1, 2, 3))
        bound = 127 * weights + np.abs(self.arrays[f"{name}.bias"].astype(np.int64))
        require(bound.max() < 2**24, "E16")

    def read_tables(self) -> None:
        """The tables in their order, and the first of each scale that is not silent."""
        require("tables.frequencies" in self.arrays, "E16")
        frequencies = self.arrays["tables.frequencies"].tolist()
        self.tables: list[list[int]] = []
        self.first_table: dict[int, int] = {}
        for scale, size in enumerate(self.arrays["tables.sizes"].tolist()):
            require(size <= 7 or size == 255, "E16")
            if size == 255:
                continue
            self.first_table[scale] = len(self.tables)
            for _ in range(8):
                count = 2 * (2 ** (size + 1) - 1) + 1
                table, frequencies = frequencies[:count], frequencies[count:]
                require(len(table) == count, "E16")
                self.tables.append([*table, 2**16 - sum(table)])
                require(min(self.tables[-1]) >= 1, "E16")
        require(not frequencies, "E16")


# tags


def read_tags(payload: bytes) -> list[Tag]:
    """The records: tag, type, count and bytes."""
    require(len(payload) >= 1 and payload[0] <= 2, "E14")
    records = payload[1:]
    if payload[0] > 0:
        filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 65536}]
        stream = (
            zlib.decompressobj()
            if payload[0] == 1
            else lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=filters)
        )
        try:
            records = stream.decompress(records, 65537)
        except (zlib.error, lzma.LZMAError):
            raise FormatError("E14") from None
        require(stream.eof and not stream.unused_data, "E14")
    require(len(records) <= 65536, "E14")
    sizes = (1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8)
    tags: list[Tag] = []
    position = 0
    while position < len(records):
        require(len(records) >= position + 8, "E14")
        tag, kind, count = struct.unpack_from("<HHI", records, position)
        require((not tags or tag > tags[-1][0]) and 1 <= kind <= 12, "E14")
        end = position + 8 + count * sizes[kind - 1]
        require(len(records) >= end, "E14")
        tags.append((tag, kind, count, records[position + 8 : end]))
        position = end
    return tags
