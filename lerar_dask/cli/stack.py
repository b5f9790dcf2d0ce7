"""`lerar stack NIGHT... -o OUT`."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Group, Parameter

from lerar_dask import settings as s
from lerar_dask.cli import log
from lerar_dask.cli.display import Display, print_aside, print_json, print_pairs, print_table, progress
from lerar_dask.cli.places import needs_night
from lerar_dask.cli.sources import settings_of, unknown_variables
from lerar_dask.cli.text import say
from lerar_dask.errors import UsageError
from lerar_dask.products.quantities import duration, size
from lerar_dask.runtime.memory import check_address_space, parse_bytes
from lerar_dask.settings_toml import places_from_toml
from lerar_dask.standing import standing_summary

if TYPE_CHECKING:
    from lerar_dask.runtime.events import Bus
    from lerar_dask.summary import DryRun, Summary

__all__ = ["stack", "tell_of_compiling", "tell_summary"]

_STAGES = ("Run", "Slurm", "Link", "Masters", "Ingest", "Register", "Normalize", "Integrate", "Drizzle", "Products")
_GROUPS = {name: Group(name, sort_key=i) for i, name in enumerate(_STAGES)}
"""Panels of the help, in the order of the stages."""


def stack(
    nights: Annotated[list[Path], Parameter(name="NIGHT", negative="", show_default=False)] = [],  # noqa: B006
    /,
    *,
    out: Annotated[Path | None, Parameter(name=["--out", "-o"])] = None,
    config: Path | None = None,
    watch: Annotated[bool, Parameter(negative="")] = False,
    dry_run: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    display: Annotated[Display, Parameter(name="*")] = Display(),  # noqa: B008
    link: Annotated[s.Link, Parameter(name="*", group=_GROUPS["Link"])] = s.Link(),  # noqa: B008
    masters: Annotated[s.Masters, Parameter(name="*", group=_GROUPS["Masters"])] = s.Masters(),  # noqa: B008
    ingest: Annotated[s.Ingest, Parameter(name="*", group=_GROUPS["Ingest"])] = s.Ingest(),  # noqa: B008
    register: Annotated[s.Register, Parameter(name="*", group=_GROUPS["Register"])] = s.Register(),  # noqa: B008
    normalize: Annotated[s.Normalize, Parameter(name="*", group=_GROUPS["Normalize"])] = s.Normalize(),  # noqa: B008
    integrate: Annotated[s.Integrate, Parameter(name="*", group=_GROUPS["Integrate"])] = s.Integrate(),  # noqa: B008
    drizzle: Annotated[s.Drizzle, Parameter(name="*", group=_GROUPS["Drizzle"])] = s.Drizzle(),  # noqa: B008
    products: Annotated[s.Products, Parameter(name="*", group=_GROUPS["Products"])] = s.Products(),  # noqa: B008
    run: Annotated[s.Run, Parameter(name="*", group=_GROUPS["Run"])] = s.Run(),  # noqa: B008
    slurm: Annotated[s.Slurm, Parameter(name="*", group=_GROUPS["Slurm"])] = s.Slurm(),  # noqa: B008
) -> int:
    """Stack folders of raw frames into masters, pictures and a report.

    Interrupted at any moment, the same command goes on; called when all is done, it does nothing. Every option can
    also stand in the --config file or in the environment, as LERAR_MEMORY for --memory.

    Parameters
    ----------
    nights
        Folders of raw frames (lights, darks, flats, bias, in any order), or s3://bucket/folder.
    out
        Folder for the results; made if missing.
    config
        Settings as TOML, as OUT/lerar.toml of an earlier run; flags and environment go before it.
    watch
        Go on watching the folders, and refresh master and report whenever frames have come, until Ctrl-C.
    dry_run
        Show what would be done (groups, links, bytes, memory, tasks, time), and do nothing.
    """
    check_address_space()
    settings = settings_of([link, masters, ingest, register, normalize, integrate, drizzle, products, run, slurm])
    nights, target = _places(nights, out, config)
    _check_image(settings.normalize.ln_reference)
    if settings.run.memory:
        parse_bytes(settings.run.memory)  # what is no size is said before the night is read
    if settings.run.scheduler == "srun" and not dry_run:
        from lerar_dask.runtime.executors import rank_bytes
        from lerar_dask.runtime.ranks import is_worker_rank, serve_rank

        if is_worker_rank():
            return serve_rank(target.absolute(), rank_bytes(settings.run))
    display.log_to_screen()
    log.log_to(target / "lerar.log")
    if watch and not dry_run:
        return _watch(nights, target, settings, display)
    return _run(nights, target, settings, display, dry_run=dry_run)


def _run(nights: list[Path], out: Path, settings: s.Settings, display: Display, *, dry_run: bool) -> int:
    for note in unknown_variables():
        logging.getLogger("lerar_dask").warning(note)
    if not dry_run and (standing := standing_summary(nights, out, settings)):
        tell_summary(standing, display)
        return standing.exit_code
    from lerar_dask.pipeline import stack as run_stages
    from lerar_dask.runtime.events import Bus

    bus = Bus()
    with progress(display) as show:
        if not dry_run:
            bus.subscribe(log.log_event)
            bus.subscribe(show)
            tell_of_compiling(bus)
        result: Any = run_stages(nights, out, settings, bus=bus, dry_run=dry_run)
    if not dry_run:
        tell_summary(result, display)
        return int(result.exit_code)
    if display.json:
        print_json("dry_run", result=result)
    else:
        _print_plan(result)
    return 0


def _watch(nights: list[Path], out: Path, settings: s.Settings, display: Display) -> int:
    from lerar_dask.pipeline.watch import watch
    from lerar_dask.runtime.events import Bus

    bus = Bus()
    with progress(display) as show:
        bus.subscribe(log.log_event)
        bus.subscribe(show)
        tell_of_compiling(bus)
        for summary in watch(nights, out, settings, bus=bus):
            tell_summary(summary, display)
    return 0  # not reached: it watches until it is stopped


def tell_of_compiling(bus: Bus) -> None:
    """Say when a run begins that its kernels must be compiled first, if none are kept yet."""
    from lerar_dask.kernels.compiled import cache, precompile
    from lerar_dask.runtime.events import Event, Note, RunStarted

    text = "the first run compiles its kernels for this machine: it takes about twenty seconds longer on two cores"
    if cache.NOT_KEPT:
        text = (
            "there is no place where compiled kernels can be kept: each run compiles them, about twenty seconds on two cores. "
            "NUMBA_CACHE_DIR names a folder for them"
        )

    def print_event(event: Event) -> None:
        if isinstance(event, RunStarted) and not precompile.is_compiled():
            bus.emit(Note(text=text))

    bus.subscribe(print_event)


def _places(nights: list[Path], out: Path | None, config: Path | None) -> tuple[list[Path], Path]:
    """Where to read and where to write: from the command line, else from the settings file."""
    known_nights, known_out = places_from_toml(config) if config else ([], None)
    nights, out = nights or known_nights, out or known_out
    if not nights:
        raise UsageError("which frames? No folder was given", "lerar stack NIGHT -o OUT")
    if out is None:
        raise UsageError("where should the results go? No folder was given", "lerar stack NIGHT -o OUT")
    for night in nights:
        needs_night(night)
    return nights, out


def _check_image(path: Path | None) -> None:
    """A reference that is not there is said before the night is read."""
    if path is not None and not path.is_file():
        raise UsageError(f"--ln-reference {path}: " + ("not a file" if path.exists() else "no such file"))


def _print_plan(plan: DryRun) -> None:
    rows = [
        (g.name, g.n_lights, g.n_new, f"{g.shape[1]} x {g.shape[0]}", duration(g.exposure_s), g.strip_rows)
        for g in plan.groups
    ]
    print_table(("group", "lights", "new", "size", "exposure", "strip rows"), rows)
    for group in plan.groups:
        say()
        say(group.name)
        for line in group.links:
            say(f"  {line}")
    if plan.masters:
        say()
        say("masters")
        for line in plan.masters:
            say(f"  {line}")
    print_aside(plan.aside)
    say()
    print_pairs(
        {
            "to read": size(plan.read_bytes),
            "to write": size(plan.written_bytes),
            **({"requests": f"about {plan.requests:,} to {plan.store}"} if plan.requests else {}),
            "memory": f"{size(plan.memory_bytes)} of {size(plan.budget_bytes)}, {plan.threads} threads",
            "tasks": ", ".join(f"{n} {name}" for name, n in plan.tasks.items()) or "none: all is done",
            "time": f"about {duration(plan.seconds)}",
        }
    )


def tell_summary(summary: Summary, display: Display) -> None:
    """Tell what was stacked, what was set aside, and where the results lie, as far as the display wants it."""
    if display.json:
        print_json("summary", result=summary)
    elif not display.quiet:
        _print_summary(summary)


def _print_summary(summary: Summary) -> None:
    if summary.did_nothing:
        say("nothing to do: all is there already")
    rows = [
        (g.name, g.n_used, g.n_aside, duration(g.exposure_s), g.problem or str(g.master or "")) for g in summary.groups
    ]
    print_table(("group", "used", "aside", "exposure", "master"), rows)
    print_aside(summary.aside)
    for note in summary.notes:
        say(f"note: {note}")
    if not summary.did_nothing:
        say()
        say(
            f"{duration(summary.seconds)}, {size(summary.peak_bytes)} memory, "
            f"{size(summary.read_bytes)} read, {size(summary.written_bytes)} written"
        )
    if summary.n_failed:
        say(f"{summary.n_failed} tasks failed: details in {summary.out / 'lerar.log'}; the same command tries again")
    if summary.report:
        say(f"report   {summary.report}")
    for group in summary.groups:
        if group.preview:
            say(f"picture  {group.preview}")
        if group.drizzled:
            say(f"drizzled {group.drizzled}")
        if group.lnref:
            say(f"lnref    {group.lnref}")
