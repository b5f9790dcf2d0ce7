"""`lerar info OUT`: what is in a run."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from lerar_dask.cli.display import Display, print_json, print_pairs, print_table
from lerar_dask.cli.text import say
from lerar_dask.errors import UsageError
from lerar_dask.products.quantities import duration, size

__all__ = ["info"]

_MEASURES = ("fwhm_px", "eccentricity", "n_stars", "background_adu", "noise_adu", "scale", "weight")


def info(
    out: Path,
    /,
    *,
    frames: Annotated[bool, Parameter(negative="")] = False,
    display: Annotated[Display, Parameter(name="*")] = Display(),  # noqa: B008
) -> int:
    """Show what is in a run: frames, fates and reasons, masters, settings, sizes.

    Parameters
    ----------
    out
        The folder that `lerar stack -o` wrote.
    frames
        List every frame, not only those set aside.
    """
    if not out.is_dir():
        raise UsageError(f"{out}: " + ("not a folder" if out.exists() else "no such folder"))
    from lerar_dask.run import Run

    run = Run.open(out)
    if display.json:
        tables = {name: getattr(run, name) for name in ("groups", "frames", "links", "settings")}
        print_json("info", **tables, sizes=_sizes(out))
        return 0
    _print_groups(run.frames, out)
    _print_frames([f for f in run.frames if frames or f["fate"] != "used"], everything=frames)
    _print_settings(run.settings)
    say()
    say("sizes")
    print_pairs({f"  {name}": size(n) for name, n in _sizes(out).items()})
    return 0


def _print_groups(frames: Sequence[Mapping[str, Any]], out: Path) -> None:
    rows = []
    for group in sorted({f["group"] for f in frames if f["group"]}):
        members = [f for f in frames if f["group"] == group]
        fates = Counter(f["fate"] for f in members)
        exposure = sum(f["exposure_s"] or 0.0 for f in members if f["fate"] == "used")
        master = out / f"{group}.fits"
        where = str(master) if master.exists() else "no master"
        rows.append((group, fates["used"], fates["aside"], fates["failed"], duration(exposure), where))
    print_table(("group", "used", "aside", "failed", "exposure", "master"), rows)


def _print_frames(frames: Sequence[Mapping[str, Any]], *, everything: bool) -> None:
    if not frames:
        return
    say()
    say("frames" if everything else "set aside")
    measures = _MEASURES if everything else ()
    rows = [(f["path"], f["fate"], *(_short(f.get(m)) for m in measures), f["reason"] or "") for f in frames]
    print_table(("path", "fate", *(m.removesuffix("_px").removesuffix("_adu") for m in measures), "reason"), rows)


def _print_settings(settings: Any) -> None:
    """Settings that differ from the defaults."""
    import dataclasses

    from lerar_dask.settings import Settings

    plain = dataclasses.asdict(settings) if dataclasses.is_dataclass(settings) else dict(settings)  # type: ignore[arg-type]
    default = dataclasses.asdict(Settings())
    changed = {
        f"  {name}": value
        for table, values in plain.items()
        for name, value in values.items()
        if default.get(table, {}).get(name) != value
    }
    say()
    say("settings" + ("" if changed else ": all as by default"))
    print_pairs(changed)


def _sizes(out: Path) -> dict[str, int]:
    """Bytes of each thing in the folder."""
    return {entry.name: _bytes(Path(entry.path)) for entry in sorted(os.scandir(out), key=lambda e: e.name)}


def _bytes(path: Path) -> int:
    if not path.is_dir():
        return path.stat().st_size
    return sum(os.lstat(os.path.join(folder, name)).st_size for folder, _, names in os.walk(path) for name in names)


def _short(value: Any) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
