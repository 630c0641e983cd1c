"""A second decoder of sidecars, written from docs/FORMAT.md alone. Not a test itself.

It shares no code with the package, prefers the document's words to speed, and
follows the document's sections in their order. Entropy coding and all values
are integers of Python; numpy holds the pixels, and computes the mosaic row by
row in 64-bit integers.
"""

from __future__ import annotations

import hashlib
import re
import struct
import unicodedata
import zlib
from collections.abc import Callable, Iterator
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
    tags: list[Tag]


def decode(sidecar: bytes, jpeg: np.ndarray) -> Decoded:
    """The mosaic of a sidecar and the pixels of its JPEG: uint8 of (rows, columns, 3)."""
    chunks = read_chunks(sidecar)
    head = Head(chunks["HEAD"])
    require(not head.model_id, "E16")
    tags = read_tags(chunks["tags"]) if "tags" in chunks else []
    require(jpeg.shape == (head.jpeg_height, head.jpeg_width, 3), "E17")
    require(jpeg_digest(jpeg) == head.jpeg_digest, "E17")
    alignment = Alignment(chunks["ALGN"])
    guide = Guide(jpeg, alignment, head)
    tone = Tone(chunks["TONE"], head, guide.reached())
    samples = mosaic(head, guide, tone)
    digest = hashlib.sha256(samples.astype("<u2").tobytes()).digest()
    require(digest[:16] == head.mosaic_digest, "E18")
    return Decoded(samples, head, alignment, tone, tags)


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

    order = ["HEAD", "ALGN", "TONE", "tags", "TAIL"]
    names = [name for name, _ in chunks]
    require(all(name in order or name[0].islower() for name in names), "E11")
    known = [name for name in names if name in order]
    require(names[0] == "HEAD", "E12")
    require(known in (order, [name for name in order if name != "tags"]), "E12")
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
        require(self.left + self.width <= self.raw_width, "E13")
        require(self.top + self.height <= self.raw_height, "E13")
        require(self.white >= 1 and max(self.black) < self.white, "E13")
        require(1 <= self.orientation <= 8 and self.quality <= 4, "E13")
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
        self.orientation, self.step_x, self.origin_x, self.step_y, self.origin_y, warped = fields
        require(warped <= 1 and len(payload) == (194 if warped else 26), "E19")
        self.warp_x = struct.unpack("<21i", payload[26:110]) if warped else None
        self.warp_y = struct.unpack("<21i", payload[110:]) if warped else None
        require(1 <= self.orientation <= 8, "E19")
        for step, origin in ((self.step_x, self.origin_x), (self.step_y, self.origin_y)):
            require(3355443 <= step <= 20971520, "E19")
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


def displacement(warp: tuple[int, ...] | None, x: int, y: int) -> int:
    """D, for X and Y."""
    if warp is None:
        return 0
    coefficient = dict(zip(TERMS, warp, strict=True))
    d = 0
    for i in range(5, -1, -1):
        line = 0
        for j in range(5 - i, -1, -1):
            line = (line * y + 2**14) // 2**15 + coefficient[i, j]
        d = (d * x + 2**14) // 2**15 + line
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
        u, v = self.places(y, columns)
        pixels_x, weights_x = self.around(u, self.w)
        pixels_y, weights_y = self.around(v, self.h)
        g = np.zeros((len(columns), 3), np.int64)
        for t in range(6):
            total = np.zeros((len(columns), 3), np.int64)
            for s in range(6):
                total += weights_y[:, s, None] * self.pixels[pixels_y[:, s], pixels_x[:, t]]
            g += weights_x[:, t, None] * ((total + 8) // 16)
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
        k = 0
        while not left[k] <= quantile < left[k + 1]:
            k += 1
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
        k = len(tables[0])
        h = (k - 2) // 2
        symbols = [0] * len(chosen)
        escaped = []
        for table in sorted(set(chosen)):
            left = cumulative(tables[table])
            for position, its_table in enumerate(chosen):
                if its_table == table:
                    symbol = self.entry(left)
                    symbols[position] = symbol - h
                    if symbol == k - 1:
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


def mosaic(head: Head, guide: Guide, tone: Tone) -> np.ndarray:
    shape = (head.height, head.width, 3) if head.linear else (head.height, head.width)
    samples = np.zeros(shape, np.uint16)
    columns = range(-2, head.width + 2)
    rows = {y: guide.row(y, columns) for y in range(-2, 2)}
    for y in range(head.height):
        rows[y + 2] = guide.row(y + 2, columns)
        f = filtered([rows[y + dy] for dy in range(-2, 3)], tone.taps)
        del rows[y - 2]
        for x, c, black, place in sites(head, y):
            v = toned(f[x], y, x, c, head, tone)
            v = np.clip(v, 0, 46340)
            sample = black + (v**2 * (head.white - black) + 2**29) // 2**30
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


# tags


def read_tags(payload: bytes) -> list[Tag]:
    """The records: tag, type, count and bytes."""
    require(len(payload) >= 1 and payload[0] <= 1, "E14")
    records = payload[1:]
    if payload[0] == 1:
        stream = zlib.decompressobj()
        try:
            records = stream.decompress(records, 65537)
        except zlib.error:
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
