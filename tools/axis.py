"""Marks for an axis. Assumes and knows nothing of what is drawn; guarantees round numbers."""

import math


def ticks(top: float, wanted: int) -> list[float]:
    """Round numbers from 0 to `top` or just above it, about as many as wanted."""
    if top <= 0:
        return [0.0]
    rough = top / wanted
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(n * power for n in (1, 2, 3, 5, 10) if n * power >= rough)
    return [step * n for n in range(math.ceil(top / step - 1e-9) + 1)]
