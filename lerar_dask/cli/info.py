"""`lerar info OUT`: what is in a run."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from lerar_dask.cli.display import Display, print_json, print_pairs, print_table
from lerar_dask.cli.places import needs_folder
from lerar_dask.cli.text import say
from lerar_dask.products.quantities import duration, size

__all__ = ["info"]

_MEASURES = ("fwhm_px", "eccentricity", "n_stars", "background_adu", "noise_adu", "scale", "weight")
_SHOWN = 20
"""Damaged parts that are listed."""


def info(
    out: Path,
    /,
    *,
    frames: Annotated[bool, Parameter(negative="")] = False,
    verify: Annotated[bool, Parameter(negative="")] = False,
    display: Annotated[Display, Parameter(name="*")] = Display(),  # noqa: B008
) -> int:
    """Show what is in a run: frames, fates and reasons, masters, settings, sizes, and what is damaged in its store.

    Ends with 1 when something is damaged.

    Parameters
    ----------
    out
        The folder that `lerar stack -o` wrote.
    frames
        List every frame, not only those set aside.
    verify
        Read the raw pixels too when looking for damage; without it, everything else.
    """
    needs_folder(out)
    from lerar_dask.run import Run, store_of
    from lerar_dask.store.access import Store
    from lerar_dask.store.repair import damaged_parts

    damage = list(damaged_parts(Store.open(store_of(out)), pixels=verify))
    if "run.json" in damage:
        _print_damage(damage, verify)
        return 1
    run = Run.open(out)
    if display.json:
        tables = {name: getattr(run, name) for name in ("groups", "frames", "links", "settings")}
        print_json("info", **tables, sizes=_sizes(out), damaged=damage)
        return int(bool(damage))
    _print_groups(run.frames, out)
    _print_frames([f for f in run.frames if frames or f["fate"] != "used"], everything=frames)
    _print_settings(run.settings)
    say()
    say("sizes")
    print_pairs({f"  {name}": size(n) for name, n in _sizes(out).items()})
    _print_damage(damage, verify)
    return int(bool(damage))


def _print_damage(damage: Sequence[str], verified: bool) -> None:
    """What was looked through, and the parts that are not as they were written."""
    say()
    looked = "every file" if verified else "every file but the raw pixels, of which --verify reads all"
    if not damage:
        say(f"store: no damage found in {looked}")
        return
    say(
        f"damaged in the store, {len(damage)} of its files (looked at: {looked}); lerar stack makes them again when it needs them"
    )
    for part in damage[:_SHOWN]:
        say(f"  {part}")
    if len(damage) > _SHOWN:
        say(f"  and {len(damage) - _SHOWN} more (--json lists all)")


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
    from lerar_dask.store.storage import open_storage

    folder = open_storage(out)
    return {name: folder.bytes_below(name) for name in sorted(os.listdir(out))}


def _short(value: Any) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
