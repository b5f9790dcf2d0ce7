"""Single values of settings: whether they are of their kind, and what is said where they are not."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from types import NoneType
from typing import Any, get_args

from lerar_dask.errors import UsageError

__all__ = ["check_store", "checked_value", "nearest", "shortened"]


def checked_value(value: Any, hint: Any, name: str, base: Path | None) -> Any:
    """`value` as the type that the setting wants, or a UsageError."""
    kinds = get_args(hint) if not isinstance(hint, type) else (hint,)
    if all(isinstance(kind, str) for kind in kinds):  # Literal
        if value in kinds:
            return value
        choices = ", ".join(map(repr, kinds))
        raise UsageError(f"{name} cannot be {value!r}", f"choose from {choices}")
    if value is None and NoneType in kinds:
        return None
    if Path in kinds and isinstance(value, str | Path):
        path = Path(value).expanduser()
        return (base / path) if base else path
    if float in kinds and isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    if type(value) in kinds and type(value) is not float:
        return value
    words = {float: "a number", int: "a whole number", bool: "true or false", str: "a text", Path: "a path"}
    raise UsageError(f"{name} must be {words[kinds[0]]}, not {value!r}")


def check_store(store: str, prefix: str) -> None:
    """Refuse what is neither a folder of a file system nor a bucket."""
    if "://" in store and not store.startswith("s3://"):
        raise UsageError(
            f"{prefix}store {shortened(store)}: lerar keeps its store in a folder of this machine, on a "
            "shared disk or in a bucket",
            "give a path without ://, or s3://bucket/folder",
        )
    if any(ord(c) < 32 for c in store):
        raise UsageError(f"{prefix}store {shortened(store)}: a folder's name with control characters is not taken")


def shortened(value: Any) -> str:
    """A value for a message, cut where it is long."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def nearest(name: str, known: Iterable[str]) -> str:
    """`did you mean ...?`, or nothing when nothing is near."""
    import difflib

    near = difflib.get_close_matches(name, list(known), n=1)
    return f"did you mean {near[0]!r}?" if near else ""
