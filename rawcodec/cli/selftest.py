"""``rawcodec selftest``."""

from __future__ import annotations

import json

import click

from .shared import complain, say, write


@click.command()
@click.option(
    "--all",
    "everything",
    is_flag=True,
    help="With other threads, instruction sets, kernels and bands, too: a minute or two.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line and setting.")
def selftest(everything: bool, as_json: bool) -> int:
    """Tells whether this machine decodes sidecars to what they should decode to.

    Golden sidecars that come with rawcodec are decoded, each to its digest; where there is a GPU
    that can be used, on that too.

    \b
    rawcodec selftest
    rawcodec selftest --all
    """
    from ..selftest.run import run

    failed = False
    for tested in run(everything=everything):
        good = tested.exact == tested.count and not tested.fault
        failed |= not good
        if as_json:
            values = {
                "setting": tested.setting.name,
                "environment": dict(tested.setting.environment),
                "options": list(tested.setting.options),
                "device": tested.setting.device,
                "kernel": tested.kernel or None,
                "exact": tested.exact,
                "count": tested.count,
                "seconds": round(tested.seconds, 3),
                "fault": tested.fault or None,
            }
            write(json.dumps(values))
        else:
            verdict = "exact" if good else "NOT EXACT"
            say(
                f"{tested.setting.name:<12}{verdict:<10}{tested.exact} of {tested.count}   "
                f"{tested.kernel:<8} {tested.seconds:6.1f} s"
            )
        if not good:
            complain(
                f"{tested.setting.name}: {tested.fault}; do not decode on this machine with "
                f"these settings, and report this"
            )
    return 1 if failed else 0
