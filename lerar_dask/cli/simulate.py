"""`lerar simulate DIR`: a night with known truth."""

from __future__ import annotations

__all__ = ["simulate"]


def simulate() -> int:
    """X."""
    return 0
