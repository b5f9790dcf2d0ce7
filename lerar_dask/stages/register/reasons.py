"""Why subs do not register, in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lerar_dask.kernels.register.log_odds import MIN_PAIRS
from lerar_dask.sub import Sub

__all__ = ["reasons_of"]

_NEIGHBORS = 10
"""Subs before and after, whose stars tell what is unusual about one."""


def reasons_of(
    transforms: np.ndarray,
    members: Sequence[Sub],
    summaries: Sequence[dict[str, Any]],
    n_stars: Sequence[int],
) -> list[str]:
    """Why subs do not register, in words; empty for those that do."""
    inside = np.isfinite(transforms[:, 0, 0])
    groups = np.array([m.group for m in members])
    reasons = []
    for i, member in enumerate(members):
        if inside[i]:
            reasons.append("")
            continue
        near = np.nonzero((groups == member.group) & inside)[0]
        order = np.argsort(np.abs(near - i), kind="stable")[: 2 * _NEIGHBORS]
        near = near[order].tolist()
        reasons.append(_reason(summaries[i], n_stars[i], [summaries[k] for k in near], [n_stars[k] for k in near]))
    return reasons


def _reason(summary: dict[str, Any], n: int, near: Sequence[dict[str, Any]], near_stars: Sequence[int]) -> str:
    usual = float(np.median(near_stars)) if near_stars else 0.0
    ecc, fwhm = summary.get("eccentricity") or 0.0, summary.get("fwhm_px") or 0.0
    usual_ecc = _median([s.get("eccentricity") for s in near])
    usual_fwhm = _median([s.get("fwhm_px") for s in near])
    if n >= MIN_PAIRS and ecc > max(0.7, usual_ecc + 0.2):
        return f"trailed (eccentricity {ecc:.2f})"
    if n >= MIN_PAIRS and usual_fwhm and fwhm > 2.0 * usual_fwhm:
        return f"out of focus: stars {fwhm:.1f} px wide where its neighbors have {usual_fwhm:.1f}"
    if n < 0.3 * usual and usual >= 2 * MIN_PAIRS:
        return f"clouds: {n} stars where its neighbors have {usual:.0f}"
    if n < MIN_PAIRS:
        return f"too few stars ({n} found, {MIN_PAIRS} needed)"
    return f"other field: its {n} stars match those of no other sub"


def _median(values: Sequence[float | None]) -> float:
    """Median of what is known; 0 when nothing is."""
    known = [v for v in values if v]
    return float(np.median(known)) if known else 0.0
