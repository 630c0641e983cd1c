"""The systems that the paper compares, side by side: docs/results/paper.md.

Its protocol on our photos: demosaiced raws of reduced size, and pictures that a program rendered of
them, without loss or as JPEGs. See ``examples.baselines.protocol``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean

from examples.baselines.lineup import LITTLE, OURS, Entry, groups, lineup, named
from examples.baselines.protocol import PICTURES, Photo, read_photo
from rawcodec.photo.raw import read_raw

from .curves import Point, bd_rate, bpp_at, psnr_at
from .markdown import page, table, versions
from .measured import Measured, Result, by_setting, curve, means, of
from .pairs import Pair
from .paper_cost import cost_section
from .paper_entropy import entropy_section
from .paper_figures import figures_section
from .paper_orders import orders_section
from .plots import rate_distortion

COMMAND = "python -m examples.benchmark paper --work docs/results/paper"

MOST = 1_500_000
"""Pixels of a photo at most, after it is reduced."""

DRAWN = "90", "10"
"""The pictures whose curves are drawn."""

NAMES = {
    "png": "PNG (8 bits, no loss)",
    **{name: f"JPEG, quality {name}" for name in PICTURES if name != "png"},
}

PUBLISHED = {
    ("10", "R2LCM, 0.5"): "39.09 dB, 0.97491 at 0.2718 bpp",
    ("10", "Nam et al."): "at 0.844 bpp",
}
"""What the supplement reports of these systems, on photos of NUS: its table 2 and figure 6."""


def photos(pairs: Sequence[Pair]) -> list[Photo]:
    """The raws of all pairs, each once, reduced to at most ``MOST`` pixels."""
    found = {}
    for pair in pairs:
        if pair.photo not in found:
            sensor = read_raw(pair.raw).mosaic.sensor
            reduced = 1
            while sensor.width * sensor.height / (2 * reduced) ** 2 > MOST:
                reduced += 1
            found[pair.photo] = read_photo(pair.raw, pair.photo, reduced)
    return list(found.values())


def run_all(pairs: Sequence[Pair], runs: Path, out: Path, work: Path) -> None:
    """Measure what is not measured yet, and write the page and its pictures.

    runs: trained weights, see ``lineup``. work: a folder for what was measured.
    """
    entries, taken = lineup(runs), photos(pairs)
    results = Measured(work / "paper.jsonl").measure(entries, taken, PICTURES)
    out.mkdir(parents=True, exist_ok=True)
    rate_distortion(
        out / "paper-curves.png",
        [
            (f"{NAMES[picture]}{', its own bytes included' if whole else ''}", {
                group: means(_of(results, group, picture), whole)
                for group in groups(entries)
                if _of(results, group, picture) and "lossless" not in group
            })
            for picture in DRAWN
            for whole in (False, True)
        ],
        ("bits per pixel", "PSNR of the demosaiced raw, dB"),
    )  # fmt: skip
    blocks: list[str] = []
    # hours in all: what is done is on the page, should the rest be stopped
    for section in (
        lambda: _protocol(taken),
        lambda: _training(runs),
        lambda: _fidelity(entries, results, taken),
        lambda: cost_section(entries, results, taken, work),
        lambda: entropy_section(pairs),
        lambda: orders_section(taken, runs),
        lambda: figures_section(taken, runs, out),
    ):
        blocks += section()
        (out / "paper.md").write_text(_page(blocks), encoding="utf-8")


def _page(blocks: Sequence[str]) -> str:
    return page(
        "# The paper's systems, side by side",
        "Every system writes a real file, and is given back what it wrote beside the picture "
        "alone. All rows come from one command, run in the checkout with the extra `benchmark` "
        "installed, with the weights in `examples/baselines/weights` (`--runs` takes others); "
        "`docs/results/paper` has every number that it found, and what did not change since is not "
        "measured again; with an empty folder as `--work`, all is:\n\n```\n"
        f"{COMMAND} --data FOLDER --out docs/results\n```",
        versions(),
        *blocks,
    )


def _protocol(taken: Sequence[Photo]) -> list[str]:
    sizes = ", ".join(f"{p.name} {p.raw.shape[1]}x{p.raw.shape[0]}" for p in taken)
    return [
        "## Protocol",
        "The paper takes photos of the NUS data set, demosaiced and reduced, and renders them by "
        "software as 8-bit sRGB, without loss or as JPEGs of quality 10 to 90. Here the raws are "
        f"others ({sizes}), of cameras that nothing was trained on; the cells of their mosaics "
        "become pixels, reduced until they have at most 1.5 megapixels; the program is white "
        "balance, the camera's matrix, exposure and the curve of sRGB, then PNG or a 4:2:0 JPEG. "
        "So its numbers and these cannot be compared one by one; they stand in a column of their "
        "own. bpp is 8 x bytes / pixels of all that is stored beside the picture. PSNR and SSIM "
        "are of linear samples with white at 1; a mean is over the photos.",
        "What is coded is not what rawcodec is made for: three demosaiced colours at each pixel in "
        "the place of one, which it takes as a linear DNG.",
    ]


def _training(runs: Path) -> list[str]:
    from .paper_training import section

    return section(runs)


def _of(results: Sequence[Result], group: str, picture: str) -> list[Result]:
    """Results of a system with a picture, or without any."""
    return of(results, group=group, picture=picture) or of(results, group=group, picture="")


def _fidelity(
    entries: Sequence[Entry], results: Sequence[Result], taken: Sequence[Photo]
) -> list[str]:
    blocks = [
        "## Fidelity and rate",
        "![Rate and distortion](paper-curves.png)",
        "*gain* is how far rawcodec is ahead at the same bpp, photo by photo, *bits* what it takes "
        "for the same PSNR as a share of the rival's, *BD-rate* the same over all that two curves "
        "have in common; once with its installed weights, and once with those that had as little "
        "training as the rivals. With *>* and *<* the rival takes more than rawcodec's largest "
        "file, or is worse than its smallest, on one photo at least, and rawcodec counts with that "
        "file; n/a is where a rival takes less than the smallest, or is better than the largest. "
        "JPEG XL alone does not look at the picture: for it, *gain* and *bits* count the picture's "
        "bytes on rawcodec's side. InvISP is measured as in the paper: with its own rendering, "
        "saved in the same way, and its inverse.",
    ]
    blocks += _verdict(entries, results)
    for picture, name in NAMES.items():
        rows = []
        for group in groups(entries):
            found = _of(results, group, picture)
            compared = _compared(results, found, picture)
            for setting, same in by_setting(found).items():
                title = named(group, setting)
                rows.append(
                    [
                        title,
                        f"{mean(r.bpp for r in same):.4g}",
                        f"{mean(r.psnr for r in same):.2f}",
                        f"{mean(r.ssim for r in same):.4f}",
                        *compared[setting],
                        PUBLISHED.get((picture, title), ""),
                    ]
                )
        shown = mean(8 * r.shown / r.pixels for r in of(results, picture=picture, group=OURS))
        blocks += [
            f"### {name}: {shown:.2f} bpp by itself",
            table(
                ["system", "bpp:", "PSNR, dB:", "SSIM:", "gain, dB:", "bits:", "BD-rate:",
                 "bits, as little training:", "BD-rate, as little training:",
                 "published, other photos"],
                rows,
            ),
        ]  # fmt: skip
    return blocks


def _compared(
    results: Sequence[Result], theirs: Sequence[Result], picture: str
) -> dict[str, list[str]]:
    """By setting: gain at the same bpp, share of bits at the same PSNR, BD-rate, and both shares
    of bits for rawcodec with as little training, as printed."""
    settings = by_setting(theirs)
    if theirs[0].group in (OURS, LITTLE) or "lossless" in theirs[0].group:
        return {setting: [""] * 5 for setting in settings}
    whole = not theirs[0].picture
    ours, little = (
        {
            photo: front(curve(of(results, group=group, picture=picture, photo=photo), whole))
            for photo in dict.fromkeys(r.photo for r in theirs)
        }
        for group in (OURS, LITTLE)
    )

    def rate(lines: Mapping[str, Sequence[Point]]) -> str:
        rates = [bd_rate(line, curve(of(theirs, photo=p), whole)) for p, line in lines.items()]
        known = [each for each in rates if each is not None]
        return _counted(f"{mean(known):+.0%}" if known else "", len(known), len(lines))

    found = {}
    for number, (setting, same) in enumerate(settings.items()):
        points = [(r.photo, curve([r], whole)[0]) for r in same]
        first = number == 0 and len(settings) > 1
        found[setting] = [
            _mean(">{:+.2f}", [gain(ours[photo], point) for photo, point in points]),
            _mean("<{:.0%}", [share(ours[photo], point) for photo, point in points]),
            rate(ours) if first else "",
            _mean("<{:.0%}", [share(little[photo], point) for photo, point in points]),
            rate(little) if first else "",
        ]
    return found


def front(line: Sequence[Point]) -> list[Point]:
    """The points of a curve that are better than all that take less, by rate."""
    found: list[Point] = []
    for point in sorted(line, key=lambda point: point.bpp):
        if not found or point.psnr > found[-1].psnr:
            found.append(point)
    return found


def gain(line: Sequence[Point], point: Point) -> tuple[float, bool] | None:
    """How many dB a curve is above a point, and whether that is all that can be said.

    Beyond a curve's end it is at least as good as there.
    """
    if line and point.bpp > line[-1].bpp:
        return (line[-1].psnr - point.psnr, False) if line[-1].psnr >= point.psnr else None
    at = psnr_at(line, point.bpp)
    return None if at is None else (at - point.psnr, True)


def share(line: Sequence[Point], point: Point) -> tuple[float, bool] | None:
    """What a curve takes for a point's PSNR as a share of its bits, and whether it is that little.

    Below a curve's first point it takes no more than there.
    """
    if line and point.psnr < line[0].psnr:
        return (line[0].bpp / point.bpp, False) if line[0].bpp <= point.bpp else None
    at = bpp_at(line, point.psnr)
    return None if at is None else (at / point.bpp, True)


def outcome(line: Sequence[Point], point: Point) -> str:
    """Who is ahead, a curve or a point: ``ours``, ``theirs``, or ``neither``.

    Neither: the point takes less than the curve's first and is worse, or more than its last and is
    better.
    """
    ahead = gain(line, point)
    if ahead is not None:
        return "ours" if ahead[0] >= 0 else "theirs"
    smaller = point.bpp < line[0].bpp
    return "theirs" if smaller and point.psnr >= line[0].psnr else "neither"


def _verdict(entries: Sequence[Entry], results: Sequence[Result]) -> list[str]:
    """All photos and pictures together: who is ahead of whom how often."""
    rows = []
    for group in groups(entries):
        if group in (OURS, LITTLE) or "lossless" in group:
            continue
        theirs = of(results, group=group)
        row = [group]
        for name in (OURS, LITTLE):
            found = Counter[str]()
            for r in theirs:
                for picture in [r.picture] if r.picture else PICTURES:
                    ours = of(results, group=name, picture=picture, photo=r.photo)
                    line = front(curve(ours, not r.picture))
                    if line:
                        found[outcome(line, curve([r], not r.picture)[0])] += 1
            row += [str(found[each]) for each in ("ours", "theirs", "neither")]
        rows.append(row)
    return [
        "All photos, pictures and settings, and who has the higher PSNR at a rival's bpp; "
        "*neither* where a rival takes less than rawcodec's smallest file and is worse, or more "
        "than its largest and is better:",
        table(
            ["system", "rawcodec ahead:", "rival ahead:", "neither:",
             "as little training: rawcodec ahead:", "rival ahead:", "neither:"],
            rows,
        ),
    ]  # fmt: skip


def _mean(form: str, values: Sequence[tuple[float, bool] | None]) -> str:
    """A mean as printed; form: begins with a sign that says that it is a bound."""
    known = [each for each in values if each is not None]
    if not known:
        return "n/a"
    text = form.format(mean(value for value, _ in known))
    exact = all(exact for _, exact in known)
    return _counted(text[1:] if exact else text, len(known), len(values))


def _counted(text: str, count: int, all_: int) -> str:
    """A mean, and of how many photos it is where that is not all."""
    if not text:
        return "n/a"
    return text if count == all_ else f"{text} ({count} of {all_})"
