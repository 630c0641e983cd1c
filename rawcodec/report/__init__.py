"""A page about one photo: what came back of a raw, beside the raw."""

from .page import Part, write_report

__all__ = ["Part", "write_report"]
