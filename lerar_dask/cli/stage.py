"""`lerar stage STAGE OUT`: the stages of a run one by one, as plain job arrays of any batch system take them."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from lerar_dask.cli import log
from lerar_dask.cli.display import Display, print_json, print_table, progress
from lerar_dask.cli.places import needs_night
from lerar_dask.cli.stack import tell_of_compiling, tell_summary
from lerar_dask.cli.text import say
from lerar_dask.errors import UsageError
from lerar_dask.settings import Settings
from lerar_dask.settings_toml import from_toml

__all__ = ["stage"]

Stage = Literal["begin", "list", "sbatch", "masters", "ingest", "solve", "integrate", "drizzle", "products"]


def stage(
    what: Annotated[Stage, Parameter(name="STAGE")],
    out: Annotated[Path, Parameter(name="OUT")],
    /,
    *,
    night: Annotated[list[Path], Parameter(negative="")] = [],  # noqa: B006
    config: Path | None = None,
    part: str = "1/1",
    display: Annotated[Display, Parameter(name="*")] = Display(),  # noqa: B008
) -> int:
    """Do one stage of a run in a job of its own; the bits are those of `lerar stack`.

    begin keeps folders and settings in OUT/lerar.toml; masters, solve and products are one job each; ingest, integrate and
    drizzle are shared by as many jobs as --part says, each on any node; list shows what waits; sbatch prints a script that
    submits all of them to Slurm, each after the one before.

    Parameters
    ----------
    what
        begin, list, sbatch, masters, ingest, solve, integrate, drizzle or products.
    out
        Folder for the results, which all nodes see.
    night
        With begin: a folder of raw frames; several by several --night.
    config
        With begin: settings as TOML, as OUT/lerar.toml of another run.
    part
        Which share of the tasks this job does, as 3/40; for sbatch, the jobs of a shared stage, as 1/40.
    """
    number, of = _part(part)
    if what == "begin":
        return _begin(night, out, config, display)
    if what == "list":
        return _list(out, display)
    if what == "sbatch":
        return _sbatch(out, of)
    return _do(what, out, number, of, display)


def _begin(nights: list[Path], out: Path, config: Path | None, display: Display) -> int:
    from lerar_dask.pipeline.parts import begin

    if not nights:
        raise UsageError("which frames? No folder was given", "lerar stage begin OUT --night NIGHT")
    for night in nights:
        needs_night(night)
    begin(nights, out, from_toml(config) if config else Settings())
    if not display.quiet:
        say(f"settings are in {out / 'lerar.toml'}; next: lerar stage masters {out}")
    return 0


def _list(out: Path, display: Display) -> int:
    """Tell what waits."""
    from lerar_dask.pipeline.parts import DRIVERS, chain, left_of

    waiting: Counter[str] = Counter()
    for step in left_of(out):
        waiting[step.name] += len(step.tasks)
    if display.json:
        print_json("stage", chain=chain(out), left=waiting)
    elif not display.quiet:
        rows = [
            (name, "one job" if name in DRIVERS else "any number of jobs", str(waiting[name] or ""))
            for name in chain(out)
        ]
        print_table(("stage", "done by", "tasks left by the last job"), rows)
    return 0


def _sbatch(out: Path, n_jobs: int) -> int:
    from lerar_dask.pipeline.parts import SHARED, chain
    from lerar_dask.runtime.own_program import python_path, python_words
    from lerar_dask.runtime.slurm import chain_script

    stages, place = chain(out), out.absolute()

    def call(stage: str) -> list[str]:
        path = python_path()
        where = ["env", f"PYTHONPATH={path}"] if path else []
        return [*where, *python_words("lerar_dask"), "stage", stage, str(place)]

    print(chain_script(from_toml(place / "lerar.toml").slurm, stages, SHARED, n_jobs, call, place), end="")
    return 0


def _do(what: str, out: Path, number: int, of: int, display: Display) -> int:
    from lerar_dask.pipeline.parts import DRIVERS, go_on, run_part
    from lerar_dask.runtime.events import Bus

    if what in DRIVERS and of > 1:
        raise UsageError(f"{what} is one job", "leave --part away")
    display.log_to_screen()
    log.log_to(out / f"lerar-{what}-{number}.log" if of > 1 else out / "lerar.log")
    bus, done, summary = Bus(), None, None
    with progress(display) as show:
        bus.subscribe(log.log_event)
        bus.subscribe(show)
        tell_of_compiling(bus)
        if what in DRIVERS:
            summary = go_on(out, what, bus=bus)
        else:
            done = run_part(out, what, number, of, bus=bus)
    if done is not None:
        if display.json:
            print_json("part", result=done)
        elif not display.quiet:
            say(f"{what} {number}/{of}: {done.n_done} done, {done.n_aside} aside, {done.n_failed} failed")
        return int(done.n_failed > 0)
    if summary is None:
        return _list(out, display)
    tell_summary(summary, display)
    return summary.exit_code


def _part(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text.strip())
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise UsageError(f"--part {text!r} is no share", "as 3/40: the third of forty jobs")
    return int(match[1]), int(match[2])
