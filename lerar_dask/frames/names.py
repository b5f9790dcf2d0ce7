"""What folder and file names tell where the header is silent; a keyword always beats a name."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import PurePath
from typing import Any

__all__ = ["facts_of", "is_result", "kind_of", "moment_of", "object_of"]

_KINDS = (
    ("flat-dark", r"dark[ _-]?flats?|flat[ _-]?darks?"),
    ("light", r"lights?|light[ _-]?frames?|.*_sub|subs?"),
    ("dark", r"darks?|dwarf_dark"),
    ("flat", r"flats?"),
    ("bias", r"bias(es)?|offsets?|zeros?"),
)
_NAME_KINDS = (
    ("flat-dark", r"(^|[_\W])(dark_?flat|flat_?dark)"),
    ("dark", r"(^|[_\W])(master_?)?darks?([_\W\d]|$)"),
    ("flat", r"(^|[_\W])(master_?)?flats?([_\W\d]|$)"),
    ("bias", r"(^|[_\W])(master_?)?bias([_\W\d]|$)"),
    ("light", r"(^|[_\W])lights?([_\W\d]|$)"),
)
_RESULT = r"(^|[_\W])(master_?(light|dark|flat|bias)|stacked|stack_\d+|dso_stacked|integration|drizzle|result|.*_thn$)"
_PLAIN_FOLDERS = {"", "raw", "raws", "data", "night", "images", "fits", "autorun", "live", "plan", "light"}


def kind_of(path: PurePath) -> str | None:
    """Kind by the nearest folder whose whole name is a kind's, then by the file's name."""
    for part in reversed(path.parent.parts[-4:]):
        for kind, pattern in _KINDS:
            if re.fullmatch(pattern, part, re.IGNORECASE):
                return kind
    for kind, pattern in _NAME_KINDS:
        if re.search(pattern, path.stem, re.IGNORECASE):
            return kind
    return None


def is_result(path: PurePath) -> bool:
    """Whether the file's own name (never a folder's) says that it is a result, no sub."""
    return re.search(_RESULT, path.stem, re.IGNORECASE) is not None


def facts_of(path: PurePath) -> dict[str, Any]:
    """Exposure, gain, sensor temperature and binning that the file's name tells."""
    name = path.stem
    facts: dict[str, Any] = {}
    if match := re.search(r"(?:^|_)(\d+(?:\.\d+)?)(ms|s|sec|secs)(?=_|$)", name, re.IGNORECASE):
        facts["exposure_s"] = float(match[1]) * (0.001 if match[2].lower() == "ms" else 1.0)
    elif match := re.search(r"exp_(\d+(?:\.\d+)?)", name, re.IGNORECASE):
        facts["exposure_s"] = float(match[1])
    if match := re.search(r"gain_?(\d+)", name, re.IGNORECASE):
        facts["gain"] = float(match[1])
    if match := re.search(r"_(-?\d+(?:\.\d+)?)C(?=_|$)", name):
        facts["sensor_temp_c"] = float(match[1])
    if match := re.search(r"(?:^|_)bin_?(\d)", name, re.IGNORECASE):
        facts["binning"] = (int(match[1]), int(match[1]))
    return facts


def moment_of(path: PurePath) -> datetime | None:
    """Time stamp in the file's name; local time without a zone, good for sorting only."""
    match = re.search(r"(\d{4})-?(\d{2})-?(\d{2})[-_T](\d{2})-?(\d{2})-?(\d{2})", path.stem)
    try:
        if match is None:
            return None
        year, month, day, hour, minute, second = (int(g) for g in match.groups())
        return datetime(year, month, day, hour, minute, second, tzinfo=UTC)
    except ValueError:
        return None


def object_of(path: PurePath) -> str | None:
    """Target by the nearest folder that is no kind, no date and no plain word."""
    for part in reversed(path.parent.parts[-4:]):
        plain = re.sub(r"_sub$", "", part)
        is_kind = any(
            re.fullmatch(pattern, part, re.IGNORECASE) for _, pattern in _KINDS[1:] if not part.endswith("_sub")
        )
        if is_kind or re.fullmatch(r"[\d\-_:. ]+", part) or part.lower() in _PLAIN_FOLDERS or part == path.anchor:
            continue
        return plain
    return None
