"""How much sooner than its rivals rawcodec gives a raw that is better than theirs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from examples.baselines.lineup import OURS, named

from .markdown import table
from .measured import Result


@dataclass(frozen=True)
class Duel:
    """A setting of rawcodec beside a rival, on the same photos with the same pictures.

    cases: how many there are. better: those in which the setting has the higher PSNR. smaller:
    those in which it takes fewer bytes.
    """

    cases: int
    better: int
    smaller: int

    @property
    def won(self) -> bool:
        """Whether there are cases, and the PSNR is higher in all."""
        return 0 < self.cases == self.better


def duel(results: Sequence[Result], ours: str, theirs: str) -> Duel:
    """Of two entries, by their names, in the cases in which both are measured."""
    mine = {(r.photo, r.picture): r for r in results if r.name == ours}
    rivals = {(r.photo, r.picture): r for r in results if r.name == theirs}
    cases = mine.keys() & rivals.keys()
    return Duel(
        len(cases),
        sum(mine[case].psnr > rivals[case].psnr for case in cases),
        sum(mine[case].size < rivals[case].size for case in cases),
    )


def quickest(duels: Mapping[str, Duel], seconds: Mapping[str, float]) -> str | None:
    """Of the settings that won everywhere, the one of the fewest seconds; None if none did."""
    winners = [setting for setting, each in duels.items() if each.won]
    return min(winners, key=lambda setting: seconds[setting], default=None)


def nearest(duels: Mapping[str, Duel], seconds: Mapping[str, float]) -> str:
    """The setting that is better most often, of several the one of the fewest seconds."""
    return max(duels, key=lambda setting: (duels[setting].better, -seconds[setting]))


def row(
    rival: str, took: float, duels: Mapping[str, Duel], seconds: Mapping[str, float], base: str
) -> list[str]:
    """A row of the table.

    took: the rival's seconds. duels, seconds: of each setting. base: the setting of the last
    column.
    """
    setting = quickest(duels, seconds)
    if setting is None:
        near = nearest(duels, seconds)
        each = duels[near]
        found = [f"none: ahead in {each.better} of {each.cases} at `{near}`", "", "", ""]
    else:
        each = duels[setting]
        found = [
            f"`{setting}`",
            f"{seconds[setting]:.1f}",
            f"{took / seconds[setting]:.1f}",
            f"{each.smaller} of {each.cases}",
        ]
    return [rival, f"{took:.1f}", *found, f"{took / seconds[base]:.1f}"]


def sooner(
    results: Sequence[Result],
    seconds: Mapping[str, float],
    rivals: Sequence[str],
    settings: Sequence[str],
    base: str,
) -> list[str]:
    """The part of the page.

    seconds: of encoding and decoding a photo, by the names of entries. rivals: of these. settings:
    rawcodec's. base: the one that all are compared with.
    """
    own = {setting: seconds[named(OURS, setting)] for setting in settings}
    rows = [
        row(
            rival,
            seconds[rival],
            {setting: duel(results, named(OURS, setting), rival) for setting in settings},
            own,
            base,
        )
        for rival in rivals
    ]
    return [
        "### Time for as much",
        "How long a raw takes that is better than a rival's: of rawcodec's settings "
        f"{', '.join(f'`{s}`' for s in settings)}, the quickest that is ahead of the rival, with "
        "the higher PSNR on every photo with every picture under *Fidelity and rate*; how many "
        "times as long as that setting the rival takes, below 1 where the rival is quicker; and in "
        "how many of these cases the setting takes fewer bytes. *none*: no setting is ahead in all "
        "cases, and the one that is most often is in so many. Seconds are those of the table, both "
        f"ways. The last column compares with `{base}`, whichever raw is better.",
        table(
            ["rival", "its seconds:", "quickest setting ahead", "its seconds:",
             "rival, times as long:", "fewer bytes than the rival:",
             f"rival, times as long as `{base}`:"],
            rows,
        ),
    ]  # fmt: skip
