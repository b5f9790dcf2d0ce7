"""Memory that solving many subs together takes: known before any of what solves them is loaded."""

from __future__ import annotations

from collections.abc import Sequence

from lerar_dask.kernels.normalize.cells import cell_size

__all__ = ["agree_bytes", "solve_bytes"]

_STARS, _PIXELS_OF_STAR = 3000, 1000
"""Stars of a sub, at most by default, and as many as a rich field has."""


def agree_bytes(n: int) -> int:
    """Memory that bringing the matches of `n` subs together takes."""
    return n * 200_000 + (64 << 20)


def solve_bytes(shapes: Sequence[tuple[int, int]]) -> int:
    """Memory that normalizing subs of these shapes together takes."""
    # 40 bytes per cell (values, weights, positions, work), 190 per star while the common ones are found, a few subs' blocks.
    cells = sum(height * width for height, width in shapes) // cell_size(max(shapes), len(shapes)) ** 2
    stars = sum(min(_STARS, height * width // _PIXELS_OF_STAR) for height, width in shapes)
    return max(40 * cells, 190 * stars) + (96 << 20)
