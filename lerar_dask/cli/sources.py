"""Where a setting's value comes from: flag, environment (LERAR_*), TOML (--config; of a run: its lerar.toml), default.

In: the arguments as cyclopts has taken them from the command line. Out: the same with the other sources filled in, and
`settings_of`, one checked `Settings` of all stages.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cyclopts import App, ArgumentCollection, Token

from lerar_dask.errors import UsageError
from lerar_dask.settings import Settings
from lerar_dask.settings_toml import from_toml

__all__ = ["PREFIX", "fill", "settings_of", "unknown_variables"]

PREFIX = "LERAR_"


def fill(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Give every setting that has no flag its value from the environment or from the --config file."""
    file = _file_of(commands, arguments)
    values = _config_values(file) if file else {}
    for argument in arguments:
        name = argument.field_info.name
        if argument.tokens or argument.children or name not in _names():
            continue
        variable = PREFIX + name.upper()
        if variable in os.environ:
            argument.append(Token(keyword=variable, value=os.environ[variable], source="environment"))
        elif name in values:
            argument.append(Token(keyword=name, value=_text(values[name]), source="config"))
    _check_whole(arguments)


def _file_of(commands: tuple[str, ...], arguments: ArgumentCollection) -> Path | None:
    """The file of settings: --config; for a command on a run, else what the run keeps."""
    given = {a.name: a.tokens[0].value for a in arguments if a.name in ("--config", "OUT") and a.tokens}
    if "--config" in given:
        return Path(given["--config"])
    kept = Path(given.get("OUT", ""), "lerar.toml")
    return kept if commands[:1] == ("picture",) and "OUT" in given and kept.is_file() else None


def _check_whole(arguments: ArgumentCollection) -> None:
    """Refuse a number with a fraction where a whole one is wanted; it would be rounded without a word."""
    for argument in arguments:
        for token in argument.tokens if argument.hint is int else ():
            if not re.fullmatch(r"\s*[+-]?[0-9_]+\s*", token.value):
                raise UsageError(f"{argument.name} must be a whole number, not {token.value[:60]!r}")
            if len(token.value) > 18:
                raise UsageError(f"{argument.name} is too large: {token.value[:20]}...")


def settings_of(stages: Iterable[Any]) -> Settings:
    """One checked `Settings` from some stages' objects; paths become absolute, so that a digest of them stays."""
    values = {f.name: getattr(stage, f.name) for stage in stages for f in dataclasses.fields(stage)}
    return Settings.of(**{n: v.expanduser().absolute() if isinstance(v, Path) else v for n, v in values.items()})


def unknown_variables() -> list[str]:
    """Lines about LERAR_* variables that name no setting."""
    import difflib

    known = [PREFIX + name.upper() for name in _names()]
    lines = []
    for variable in sorted(os.environ):
        if variable.startswith(PREFIX) and variable not in known:
            near = difflib.get_close_matches(variable, known, n=1)
            lines.append(f"{variable} names no setting" + (f"; did you mean {near[0]}?" if near else ""))
    return lines


def _config_values(path: Path) -> dict[str, Any]:
    """Settings in the file that differ from the defaults."""
    settings, default = from_toml(path), Settings()
    return {
        field.name: getattr(getattr(settings, table.name), field.name)
        for table in dataclasses.fields(Settings)
        for field in dataclasses.fields(getattr(settings, table.name))
        if getattr(getattr(settings, table.name), field.name) != getattr(getattr(default, table.name), field.name)
    }


def _names() -> set[str]:
    return {f.name for t in dataclasses.fields(Settings) for f in dataclasses.fields(t.default_factory)}  # type: ignore[arg-type]


def _text(value: Any) -> str:
    """A value as it would be typed."""
    return str(value).lower() if isinstance(value, bool) else str(value)
