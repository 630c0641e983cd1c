"""Measurements of rawcodec on real photos, written to docs/results.

Run from the checkout, with the extra ``benchmark`` installed::

    python -m examples.benchmark tone

Every subcommand writes one page of tables and the pictures that belong to it.
"""
