"""From the masters of a run to pictures: the linear order, step by step, each only as far as something is left to do.

Combine, take the sky off and balance the white while the image is linear; stretch; join luminance and color; write.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lerar_dask.errors import LerarError, StoreError, space_error
from lerar_dask.grid import Canvas
from lerar_dask.link.meaning import filter_key
from lerar_dask.pipeline import run_report
from lerar_dask.pipeline.files import as_files, is_kept, keep_file, told_of
from lerar_dask.pipeline.heal import until_whole
from lerar_dask.pipeline.picture_products import plan_files
from lerar_dask.pipeline.picture_report import keep_parts, pictures_of
from lerar_dask.pipeline.session import Session, stop_on_failure
from lerar_dask.pipeline.settings_file import keep_settings
from lerar_dask.products import report
from lerar_dask.run import GroupState, Run, RunState, store_of
from lerar_dask.runtime import events, memory
from lerar_dask.runtime.executors import make_executor
from lerar_dask.settings import Settings, from_toml
from lerar_dask.stages.integrate.stack_table import load_table
from lerar_dask.stages.picture import deconvolve, finish, linear, measure, psf
from lerar_dask.stages.picture.numbers import Balance, Tone, balance_of, facts_of, light_limits, tone_of
from lerar_dask.stages.picture.recipe import Channel, Recipe, make_recipe
from lerar_dask.store.access import Store, open_store

__all__ = ["PICTURE_STAGES", "PictureSummary", "PictureWork", "make_pictures"]

_ROLES = {"l": "L", "r": "R", "g": "G", "b": "B", "v": "V", "i": "I"}
_ROLES |= {"ha": "Ha", "oiii": "OIII", "sii": "SII", "hb": "Hb", "nii": "NII"}
"""What a filter is in a picture, by its key."""


@dataclass(frozen=True, kw_only=True)
class PictureWork:
    """A picture of one target on its way; each stage returns it with what it found."""

    target: str
    canvas: Canvas
    groups: Mapping[str, GroupState]
    """Of the target, by name."""
    state: RunState
    recipe: Recipe | None = None
    fwhm_px: float = 3.0
    saturation: tuple[float, ...] = ()
    measured: str = ""
    """Key, as those below."""
    balance: Balance | None = None
    linear: str = ""
    sharp: str = ""
    """Empty: nothing was deconvolved."""
    tone: Tone | None = None
    finished: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, Path] = field(default_factory=dict)
    """Products by kind."""
    problem: str = ""

    @property
    def psf_fwhm_px(self) -> float:
        """Of the usual PSF."""
        psf = self.facts["psf"]
        return float(np.sqrt(psf["fwhm_x_px"] * psf["fwhm_y_px"]))


@dataclass(frozen=True, kw_only=True)
class PictureSummary:
    """What `lerar picture` did."""

    out: Path
    pictures: Sequence[PictureWork]
    did_nothing: bool
    seconds: float
    peak_bytes: int

    @property
    def exit_code(self) -> int:
        """0 when every target has its picture."""
        return int(any(p.problem for p in self.pictures) or not self.pictures)


def make_pictures(out: Path, settings: Settings, *, bus: events.Bus) -> PictureSummary:
    """Make a picture of every target of a run.

    Raises
    ------
    LerarError
        when there is no run, or its store cannot be used.
    """
    start = time.monotonic()
    out = Path(out).absolute()
    run = Run.open(out)
    open_store.cache_clear()
    store = Store.open(store_of(out))
    executor = make_executor(settings.run)
    bus.emit(events.RunStarted(out=str(out), threads=executor.slots, budget_bytes=executor.budget_bytes))
    try:
        with store.lock(), memory.PeakSampler() as sampler:
            session = Session(store, out, settings, bus, executor)
            with session.writing():
                works = until_whole(session, lambda: _run(session, run.state))
    except OSError as error:
        if full := space_error(error, error.filename or out, writing=True):
            raise full from error
        raise
    finally:
        executor.close()
    seconds = time.monotonic() - start
    bus.emit(events.RunFinished(seconds=seconds, exit_code=0))
    return PictureSummary(
        out=out, pictures=works, did_nothing=session.n_run == 0, seconds=seconds, peak_bytes=sampler.peak
    )


def _run(session: Session, state: RunState) -> list[PictureWork]:
    works = []
    for name, target in sorted(state.targets.items()):
        groups = {key: group for key, group in state.groups.items() if group.target == name}
        if not groups or target.canvas is None:
            continue
        work = PictureWork(target=name, canvas=target.canvas, groups=groups, state=state)
        try:
            for stage in PICTURE_STAGES:
                work = stage(session, work)
        except LerarError as error:
            if type(error) is not LerarError:
                raise
            work = dataclasses.replace(work, problem=f"{error.message} ({error.hint})" if error.hint else error.message)
        works.append(work)
    if not works:
        raise StoreError("the run has no master", "lerar info says why")
    if from_toml(session.out / "lerar.toml").products.report:
        _keep_report(session, state, works)
    keep_settings(session.out, lambda kept: dataclasses.replace(kept, picture=session.settings.picture))
    return works


# ---------------------------------------------------------------------------------------------------------- the stages


def _choose(session: Session, work: PictureWork) -> PictureWork:
    """Which channels of which masters make up the picture."""
    wanted = session.settings.picture
    known, notes = _roles(work)
    recipe = make_recipe(
        known, palette=wanted.palette, formulas=(wanted.red, wanted.green, wanted.blue), luminance=wanted.luminance
    )
    for key in recipe.masters:
        if not session.store.has(f"master/{key}/image"):
            raise StoreError("a master of the run is not in its store any more", "lerar stack makes it again")
    used = {channel.group for mix in recipe.mixes for channel in mix.channels}
    widths = [
        np.median([row["fwhm_px"] for row in work.state.frames if row["group"] == name and row.get("fwhm_px")] or [3.0])
        for name in used
    ]
    saturation = tuple(_saturation(session.store, work, mix) for mix in recipe.mixes)
    recipe = dataclasses.replace(recipe, notes=tuple(notes))
    return dataclasses.replace(work, recipe=recipe, fwhm_px=round(float(max(widths)), 3), saturation=saturation)


def _measure(session: Session, work: PictureWork) -> PictureWork:
    """Sky and stars of the masters."""
    assert work.recipe is not None
    key = measure.measure_key(work.recipe, work.canvas, work.fwhm_px)
    measure.prepare(session.store, key, work.recipe, work.canvas)
    step = measure.plan(session.store.url, work.recipe, work.canvas, work.fwhm_px, name=work.target)
    stop_on_failure(session.run(step))
    return dataclasses.replace(work, measured=key)


def _balance(session: Session, work: PictureWork) -> PictureWork:
    """Neutral, balanced linear colors."""
    assert work.recipe is not None
    url = session.store.url
    measured = measure.load(url, work.measured)
    balance = balance_of(measured, work.recipe, session.settings.picture, work.canvas.shape, work.saturation)
    key = linear.linear_key(work.recipe, work.canvas, balance)
    linear.prepare(session.store, key, work.recipe, work.canvas)
    stop_on_failure(session.run(linear.plan(url, work.recipe, work.canvas, balance, name=work.target)))
    facts = {**balance.facts, "before": facts_of(measured.tiles, work.recipe)}
    return dataclasses.replace(work, balance=balance, linear=key, facts={**work.facts, **facts})


def _sharpen(session: Session, work: PictureWork) -> PictureWork:
    """The PSF over the field; the luminance without its blur, if that is asked for."""
    assert work.recipe is not None
    assert work.balance is not None
    url, wanted = session.store.url, session.settings.picture
    key = psf.psf_key(work.linear, wanted)
    common = (work.recipe, work.canvas, work.fwhm_px, work.saturation, wanted)
    stop_on_failure(session.run(psf.plan(url, work.measured, work.linear, *common, name=work.target)))
    field = psf.load(url, key, work.canvas.shape)
    if field is None:
        if wanted.deconvolution != "none":
            raise LerarError("too few stars tell the PSF", "--deconvolution none makes the picture without it")
        return work
    facts = {**work.facts, "psf": dataclasses.asdict(field.usual), "psf_eccentricity": field.usual.eccentricity}
    facts["psf_range_px"] = [f([z.fwhm_px for row in field.zones for z in row]) for f in (min, max)]
    work = dataclasses.replace(work, facts=facts)
    if wanted.deconvolution == "none":
        return work
    assert work.recipe is not None
    assert work.balance is not None
    noise, full = light_limits(work.recipe, work.balance, work.saturation)
    sharp = deconvolve.deconvolve_key(work.linear, field, noise, full, wanted)
    deconvolve.prepare(session.store, sharp, work.canvas)
    step = deconvolve.plan(url, work.linear, work.recipe, work.canvas, field, noise, full, wanted, name=work.target)
    records = session.run(step)
    stop_on_failure(records)
    facts = {**work.facts, "iterations": max(r["result"]["iterations"] for r in records.values())}
    return dataclasses.replace(work, sharp=sharp, facts=facts)


def _finish(session: Session, work: PictureWork) -> PictureWork:
    """Stretched, with luminance, saturation and less noise of colors."""
    assert work.recipe is not None
    assert work.balance is not None
    url, wanted = session.store.url, session.settings.picture
    tiles = session.store.read_array(f"picture/{work.linear}/tiles")
    tone = tone_of(tiles, work.recipe, work.balance, wanted, work.saturation)
    key = finish.finish_key(work.linear, work.sharp, tone, wanted)
    finish.prepare(session.store, key, len(work.recipe.colors), work.canvas)
    step = finish.plan(url, work.linear, work.sharp, work.recipe, work.canvas, tone, wanted, name=work.target)
    records = session.run(step)
    stop_on_failure(records)
    counts = {name: sum(r["result"][name] for r in records.values()) for name in ("black", "white", "valid")}
    shares = {f"clipped_{end}": counts[end] / max(counts["valid"], 1) for end in ("black", "white")}
    facts = {**shares, "covered": counts["valid"] / (len(work.recipe.colors) * np.prod(work.canvas.shape))}
    facts |= {"after": facts_of(tiles, work.recipe), "white_adu": tone.white, "green_removal": tone.green or "none"}
    return dataclasses.replace(work, tone=tone, finished=key, facts={**work.facts, **facts})


def _write(session: Session, work: PictureWork) -> PictureWork:
    """The files."""
    step, files = plan_files(session, work)
    records = session.run(as_files(session, step))
    for record in records.values():
        if record["state"] != "done":
            raise LerarError(f"{record['key']}: {record['reason']}")
    return dataclasses.replace(work, files=files)


def _keep_report(session: Session, state: RunState, works: Sequence[PictureWork]) -> None:
    """The page of the run, with the steps of its pictures."""
    keep_parts(session.store, works)
    page, pictures = session.out / "report.html", pictures_of(session.store, state)
    made_of = run_report.report_digest(state, state.problems, pictures)
    if is_kept(session, page, made_of):
        return
    own = run_report.timings(session, page)
    before = [report.StageTiming(**stage) for stage in told_of(session, page).get("stages", [])]
    stages = [*(stage for stage in before if stage.name not in {s.name for s in own}), *own]

    def write() -> None:
        drawing = run_report.draw(session.store, state)
        run_report.write_run_report(
            session.store, session.out, state, drawing, stages=stages, problems=state.problems, pictures=pictures
        )

    keep_file(session, page, made_of, write, {"stages": [dataclasses.asdict(stage) for stage in stages]})


PICTURE_STAGES: Sequence[Callable[[Session, PictureWork], PictureWork]] = (
    _choose,
    _measure,
    _balance,
    _sharpen,
    _finish,
    _write,
)
"""In the linear order: the stretch comes after all that needs linear light."""


# ------------------------------------------------------------------------------------------------------------- helpers


def _roles(work: PictureWork) -> tuple[dict[str, Channel], list[str]]:
    """Channels by what they are in a picture, and what is to be said of masters that are left out."""
    known: dict[str, Channel] = {}
    notes = []
    filters = {row["group"]: row.get("filter") or "" for row in work.state.frames if row["group"] in work.groups}
    # Of several masters of one filter, that of the most subs.
    for name, group in sorted(work.groups.items(), key=lambda item: (-len(item[1].subs), item[0])):
        if group.n_channels == 3:
            roles = ["R", "G", "B"]
        else:
            key = filter_key(filters.get(name, ""))
            roles = [_ROLES.get(key.split(" ")[0], key.replace(" ", "")) or "L"]
        for c, role in enumerate(roles):
            if role in known:
                notes.append(f"{name} is left out: {known[role].group} has more subs of {role}")
                break
            known[role] = Channel(master=group.master, channel=c, n_channels=group.n_channels, group=name)
    if "G" not in known and "V" in known:
        known["G"] = known["V"]  # Johnson's V is what is green in B, V, R
    return known, notes


def _saturation(store: Store, work: PictureWork, mix: Any) -> float:
    """Value of a mix from which on it is a lower bound only, ADU; infinite where nothing saturates."""
    total = 0.0
    for share, channel in zip(mix.shares, mix.channels, strict=True):
        table = load_table(store.url, work.groups[channel.group].table)
        c = channel.channel
        full = (table.saturation - table.sky[:, c]) / table.ln_scale[:, c] + table.sky_level[c]
        total += max(share, 0.0) * float(np.min(full))
    return total
