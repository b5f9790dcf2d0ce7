"""How durations, times and sizes read, in headers, in the report and on the terminal."""

from __future__ import annotations

from datetime import UTC, datetime

__all__ = ["duration", "iso_time", "size"]


def duration(seconds: float) -> str:
    """`3 h 20 min`, `2 min 05 s`, `8.3 s`.

    >>> duration(12000), duration(125), duration(8.31)
    ('3 h 20 min', '2 min 05 s', '8.3 s')
    """
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    if whole >= 60:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{seconds:.1f} s" if seconds < 9.95 else f"{whole} s"


def iso_time(unix_s: float) -> str:
    """UTC as FITS headers have it.

    >>> iso_time(1e9)
    '2001-09-09T01:46:40.000'
    """
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3]


def size(n_bytes: float) -> str:
    """`1.5 GiB`, `820 MiB`.

    >>> size(1.5 * 2**30), size(2**20 * 820)
    ('1.5 GiB', '820 MiB')
    """
    for unit, power in (("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)):
        value = n_bytes / 2**power
        if value >= 1:
            return f"{value:.1f} {unit}" if value < 9.95 else f"{value:.0f} {unit}"
    return f"{n_bytes:.0f} B"
