"""What documents and ledger records must hold: one that is whole and tells something else was not written by lerar.

A form is a type, a tuple of forms (any of them), `[form]` for a list of any length, `[form] * n` for one of n, and a dict
for an object, whose entries named with `?` may be missing; other entries of an object are not looked at.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from lerar_dask.frames.header import Header

__all__ = ["DOCUMENTS", "RESULTS", "SUMMARY", "fits", "is_record"]

_NONE = type(None)
_INT32 = 2**31
_EXACT = 2**53
"""Whole numbers beyond are no float64."""

Form = Any

FRAME: Form = {
    "id": str,
    "path": str,
    "scale": float,
    "zero": float,
    "blank": (float, _NONE),
    "saturation_adu": float,
    "largest": float,
    "piled": bool,
    "cfa": (str, _NONE),
    "row_order": (str, _NONE),
    "header": Header,
    "cards": [str],
    "voids?": [[int] * 4],
    "valid_yx?": [int] * 4,
}
SUMMARY: Form = {
    name: float for name in ("background_adu", "noise_adu", "gradient_adu", "fwhm_px", "eccentricity", "n_stars")
}
DOCUMENTS: Mapping[str, Form] = {
    "raw": FRAME,
    "measures": SUMMARY,
    "registration": {"reasons": [str], "model": dict},
    "normalization": {"tile_px": int, "model": [str], "ln_reference": dict},
    "stack": {"geometries": [str], "calibrations": [str], "patterns": [str], "tile_px": int, "noise_cell_px": int},
    "picture": {"made_of": str, "target": str, "masters": [str], "facts": dict, "steps": [[str] * 2]},
    "pictures.json": dict,
}
"""Form of the documents below each folder of a store."""

_RECORD: Form = {"key": str, "seq": int, "digest": str, "state": str, "reason": str, "result": dict}
_MATCH: Form = ({"transform": [float] * 9, "log_odds": float, "n_pairs": int}, _NONE)
_BAD: Form = [[str] * 2]
RESULTS: Mapping[str, Form] = {
    "ingest": {"id": str, "raw": str, "geometry": str, "slot": int, "measure": str},
    "register": {"found?": [_MATCH]},
    "integrate": {"subs": [int], "low": [int], "high": [int], "used": [int]},
    "look": {"bad": _BAD},
    "levels": {"levels": [float], "bad": _BAD},
    "check": {"bad": _BAD},
    "normalize": {"ln_reference": dict},
    "file": {"written_bytes": int, "stages?": [dict]},
    "color": {"black?": int, "white?": int, "valid?": int},
}
"""Form of the results of tasks by the first word of their key; those of others are not read."""


def fits(value: Any, form: Form) -> bool:
    """Whether a value (as JSON gives it) has a form."""
    if isinstance(form, tuple):
        return any(fits(value, one) for one in form)
    if isinstance(form, list):
        if not isinstance(value, list) or (len(form) > 1 and len(value) != len(form)):
            return False
        return all(fits(one, form[0]) for one in value)
    if isinstance(form, Mapping):
        return isinstance(value, dict) and all(_has(value, name, one) for name, one in form.items())
    if form is float:
        return _is_number(value)
    if form is int:
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) < _INT32
    if form is Header:
        return _is_header(value)
    return isinstance(value, form)


def is_record(record: Any) -> bool:
    """Whether a record of the ledger is one that lerar wrote."""
    if not fits(record, _RECORD):
        return False
    form = RESULTS.get(record["key"].partition("/")[0])
    return form is None or record["state"] != "done" or fits(record["result"], form)


def _has(value: Mapping[str, Any], name: str, form: Form) -> bool:
    key = name.removesuffix("?")
    return fits(value[key], form) if key in value else name.endswith("?")


def _is_number(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= _EXACT


def _is_header(value: Any) -> bool:
    try:
        Header.from_dict(value)
    except (TypeError, ValueError, KeyError, AttributeError):
        return False
    return True
