"""Values of cards as programs write them: numbers with units and commas, angles, times; None for what says nothing."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta
from typing import Any

__all__ = [
    "NOTHING",
    "PATTERNS",
    "count_of",
    "degrees_of",
    "filter_of",
    "moment_of",
    "number_of",
    "positive_of",
    "sexagesimal_of",
    "temperature_of",
    "text_of",
]

NOTHING = {"", "none", "unknown", "n/a", "null", "nofilter", "no filter"}
"""Words for nothing."""
PATTERNS = {"RGGB", "BGGR", "GRBG", "GBRG"}
"""2x2 color patterns."""
_MASKED = re.compile(r"x+", re.IGNORECASE)
"""What some programs put over a value they hide."""


def number_of(value: Any, low: float = -math.inf) -> float | None:
    """A finite number, also from `11 C`, `9,78E-03`, `1.2D3`."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, str):
        match = re.match(r"\s*([+-]?\d*[.,]?\d+(?:[.,]\d*)?(?:[EeDd][+-]?\d+)?)", value)
        if not match:
            return None
        value = match[1].replace(",", ".").replace("D", "E").replace("d", "e")
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) and number >= low else None


def positive_of(value: Any) -> float | None:
    """A number that is not negative."""
    return number_of(value, low=0.0)


def count_of(value: Any) -> int | None:
    """A whole number that is not negative."""
    number = number_of(value, low=0.0)
    return int(number) if number is not None and number < 1e9 else None


def temperature_of(value: Any) -> float | None:
    """Degrees Celsius, also from kelvin."""
    number = number_of(value)
    if number is None:
        return None
    number = number - 273.15 if number > 100 else number
    return number if -150 < number < 80 else None


def text_of(value: Any) -> str | None:
    """Words with single blanks, without control characters."""
    text = " ".join("".join(c if c.isprintable() else " " for c in str(value)).split())
    return None if text.lower() in NOTHING or _MASKED.fullmatch(text) else text


def filter_of(value: Any) -> str | None:
    """Name of a filter; a color pattern in its place is none."""
    text = text_of(value)
    return None if text is None or text.upper() in PATTERNS else text


def degrees_of(value: Any) -> float | None:
    """Degrees from a number or `46 52 00`."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value) if -360 <= value <= 360 and value != 0 else None
    return sexagesimal_of(value)


def sexagesimal_of(value: Any) -> float | None:
    """Hours or degrees from `HH MM SS.s`, blanks or colons; keeps the sign of -00."""
    if not isinstance(value, str):
        return None
    match = re.match(r"\s*([+-]?)(\d+)[\s:hd]+(\d+)(?:[\s:m']+(\d+(?:\.\d*)?))?", value)
    if not match:
        return None
    size = float(match[2]) + float(match[3]) / 60 + float(match[4] or 0) / 3600
    if not math.isfinite(size):
        return None
    return -size if match[1] == "-" else size


def moment_of(text: str, extra: str = "") -> datetime | None:
    """UTC from an ISO stamp with any number of decimals, a `Z`, an offset, or `dd/mm/yy`."""
    text = text.strip()
    if match := re.match(r"(\d{2})/(\d{2})/(\d{2})$", text):
        text = f"19{match[3]}-{match[2]}-{match[1]}"
    if "T" not in text and ":" in extra:
        text = f"{text}T{extra.strip()}"
    match = re.match(r"(\d{4}-\d{2}-\d{2})(?:[T ](\d{2}:\d{2}:\d{2})(?:\.(\d+))?)?\s*(Z|[+-]\d{2}:?\d{2})?", text)
    if not match:
        return None
    try:
        moment = datetime.fromisoformat(f"{match[1]}T{match[2] or '00:00:00'}").replace(tzinfo=UTC)
    except ValueError:
        return None
    moment += timedelta(seconds=float(f"0.{match[3]}") if match[3] else 0.0)
    if match[4] and match[4] != "Z":
        sign = -1 if match[4][0] == "-" else 1
        digits = match[4][1:].replace(":", "")
        moment -= sign * timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))
    return moment
