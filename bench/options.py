"""Numbers on command lines, checked. Assumes argparse; knows nothing of what they are for."""

import argparse
from collections.abc import Callable


def count(text: str) -> int:
    """A number from 1 up. Raises argparse.ArgumentTypeError."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number from 1 up")
    return int(text)


def above(least: int) -> Callable[[str], int]:
    """Reads a number above `least`. What it makes raises argparse.ArgumentTypeError."""

    def read(text: str) -> int:
        if count(text) <= least:
            raise argparse.ArgumentTypeError(f"{text} is not a number above {least}")
        return int(text)

    return read


def positive(text: str) -> float:
    """A time, in whatever unit, above 0 and below 100,000. Raises argparse.ArgumentTypeError."""
    value = _number(text)
    if not 0 < value < 100_000:
        raise argparse.ArgumentTypeError(f"{text} is not a time above 0")
    return value


def part(text: str) -> float:
    """A part, above 0 and at most 1. Raises argparse.ArgumentTypeError."""
    value = _number(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not a part above 0 and up to 1")
    return value


def zero_or_more(text: str) -> float:
    """The same, or 0. Raises argparse.ArgumentTypeError."""
    return 0.0 if text in ("0", "0.0") else positive(text)


def _number(text: str) -> float:
    """The number, or 0 for what is none."""
    try:
        return float(text)
    except ValueError:
        return 0.0
