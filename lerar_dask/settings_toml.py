"""Settings as TOML: what `lerar.toml` holds, and how it is read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from lerar_dask.errors import UsageError
from lerar_dask.settings import Settings, field_texts, from_tables

__all__ = ["from_toml", "places_from_toml", "to_toml"]


def to_toml(settings: Settings, *, nights: Sequence[Path] = (), out: Path | None = None) -> str:
    """Every setting in force as TOML, each with its text as a comment.

    Parameters
    ----------
    nights, out
        Written into `[run]` when given, so that `lerar stack --config OUT/lerar.toml` alone repeats the run.
    """
    lines = ["# Settings of lerar; `lerar stack --config` of this file repeats the run.", ""]
    for table in fields(settings):
        stage = getattr(settings, table.name)
        lines += [f"# {(stage.__doc__ or '').splitlines()[0]}", f"[{table.name}]"]
        if table.name == "run" and (nights or out):
            lines += ["# The folders of raw frames, and where the results go."]
            lines += [f"nights = [{', '.join(_toml_value(Path(n).resolve()) for n in nights)}]"]
            lines += [f"out = {_toml_value(Path(out).resolve())}"] if out else []
        for name, text in field_texts(type(stage)).items():
            value = getattr(stage, name)
            lines += [f"# {line}" for line in text.splitlines()]
            lines += [f"# {name} =" if value is None else f"{name} = {_toml_value(value)}"]
        lines.append("")
    return "\n".join(lines)


def from_toml(source: str | Path) -> Settings:
    """Settings from a TOML file (a `Path`) or its text (a `str`); what is not named keeps its default.

    Relative paths inside a file are taken from the file's folder.

    Raises
    ------
    UsageError
        when it cannot be read, names an unknown table or setting (with the nearest one), or a value does not fit.
    """
    where, tables = _load_toml(source)
    base = source.resolve().parent if isinstance(source, Path) else None
    return from_tables(tables, where=where, base=base)


def places_from_toml(source: str | Path) -> tuple[list[Path], Path | None]:
    """The folders of raw frames and the output folder that `to_toml` wrote, if any."""
    where, tables = _load_toml(source)
    run = tables.get("run", {})
    nights, out = run.get("nights", []), run.get("out")
    if not isinstance(nights, list) or not all(isinstance(n, str) for n in nights):
        raise UsageError(f"{where}: [run] nights must be a list of folders")
    if out is not None and not isinstance(out, str):
        raise UsageError(f"{where}: [run] out must be a folder")
    return [Path(n) for n in nights], Path(out) if out else None


def _load_toml(source: str | Path) -> tuple[str, dict[str, Any]]:
    """Name for messages, and tables."""
    import tomllib

    where = str(source) if isinstance(source, Path) else "settings"
    try:
        text = source.read_text(encoding="utf-8", errors="surrogateescape") if isinstance(source, Path) else source
        return where, tomllib.loads(text)
    except OSError as error:
        raise UsageError(f"{where}: cannot be read ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{where}: not valid TOML: {error}") from error


def _toml_value(value: Any) -> str:
    """One value as TOML; JSON's strings, numbers and booleans are TOML's too."""
    return json.dumps(str(value) if isinstance(value, Path) else value, ensure_ascii=False).replace("\x7f", "\\u007f")
