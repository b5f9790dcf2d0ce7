"""`lerar check OUT` and `lerar clean OUT`: whether a store is whole, and what of it can go."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from lerar_dask.cli.display import Display, print_json, print_table
from lerar_dask.cli.places import needs_folder
from lerar_dask.cli.text import say
from lerar_dask.products.quantities import size

__all__ = ["check", "clean"]

_SHOWN = 20


def check(
    out: Path,
    /,
    *,
    deep: Annotated[bool, Parameter(negative="")] = False,
    display: Annotated[Display, Parameter(name="*")] = Display(),  # noqa: B008
) -> int:
    """Verify the store of a run by its checksums, and say what would be made again and from what.

    Ends with 1 when something is damaged, and with 0 when all that was read is whole. Nothing is changed: the next
    `lerar stack` mends what it meets.

    Parameters
    ----------
    out
        The folder that `lerar stack -o` wrote.
    deep
        Read the raw pixels too; without it, everything else.
    """
    needs_folder(out)
    from lerar_dask.run import store_of
    from lerar_dask.store.access import Store
    from lerar_dask.store.repair import damaged_parts, taken_with

    store = Store.open(store_of(out))
    damaged = list(damaged_parts(store, pixels=deep))
    again = sorted({path for part in damaged for path in taken_with(part)})
    if display.json:
        print_json("check", damaged=damaged, again=again, deep=deep)
        return int(bool(damaged))
    if display.quiet:
        return int(bool(damaged))
    looked = "every file" if deep else "every file but the raw pixels (--deep reads them)"
    if not damaged:
        say(f"no damage found in {looked}")
        return 0
    say(f"{len(damaged)} damaged, of {looked}; made again by the next lerar stack:")
    for path in again[:_SHOWN]:
        say(f"  {path}: {_made_from(path)}")
    if len(again) > _SHOWN:
        say(f"  and {len(again) - _SHOWN} more (--json lists all)")
    return 1


def clean(
    out: Path,
    /,
    *,
    raw: Annotated[bool, Parameter(negative="")] = False,
    dry_run: Annotated[bool, Parameter(name=("--dry-run", "-n"), negative="")] = False,
    display: Annotated[Display, Parameter(name="*")] = Display(),  # noqa: B008
) -> int:
    """Free what a store holds of earlier settings and frames, and the steps of its pictures; all can be made again.

    Parameters
    ----------
    out
        The folder that `lerar stack -o` wrote.
    raw
        Free the raw pixels too, of subs whose files are there and have not changed: a run that needs them reads them again.
    dry_run
        Show what would be freed, and free nothing.
    """
    needs_folder(out)
    from lerar_dask.pipeline.clean import clean as free

    spare = free(out, raw=raw, dry_run=dry_run)
    total = sum(item.n_bytes for item in spare)
    if display.json:
        rows = [{"what": item.words, "bytes": item.n_bytes, "paths": item.paths} for item in spare]
        print_json("clean", spare=rows, freed=not dry_run, bytes=total)
        return 0
    if display.quiet:
        return 0
    if spare:
        print_table(("what", "number", "size"), [(i.words, len(i.paths), size(i.n_bytes)) for i in spare])
    say(f"{size(total)} {'can be' if dry_run else 'are'} freed" if spare else "nothing is there that no run needs")
    return 0


def _made_from(path: str) -> str:
    """What a part of a store is made from."""
    kinds = {
        "raw": "read again from the sub's file",
        "measures": "measured again from the raw pixels",
        "calibration": "combined again from the calibration frames",
        "ledger": "what the damaged lines told is done again",
    }
    return kinds.get(path.partition("/")[0], "computed again from the store")
