"""The command line: text in, text out; the work is done elsewhere.

numpy, torch and rawpy are imported by the commands that need them, when they
run, so that ``info`` and ``--help`` answer at once.
"""

from .main import commands, main

__all__ = ["commands", "main"]
