"""Whether this machine decodes what it should: golden sidecars, with every setting that there is.

``rawcodec selftest`` shows it to a user; ``python -m examples.benchmark exactness`` does the same
with whole photos.
"""
