"""Faults on purpose: for the tests of this library, for its demo, and for the tests of its users."""

from swapstore.testing.cuts import Crash, CutShort, cut_short

__all__ = ["Crash", "CutShort", "cut_short"]
