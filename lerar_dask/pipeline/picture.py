"""From the masters of a run to pictures: the linear order, step by step, each only as far as something is left to do.

Combine, take the sky off and balance the white while the image is linear; stretch; join luminance and color; write.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from lerar_dask.errors import DamagedError, LerarError, StoreError, UsageError, space_error
from lerar_dask.grid import Canvas
from lerar_dask.identity import code_of, digest
from lerar_dask.image import open_image, psf_of
from lerar_dask.pipeline import run_report
from lerar_dask.pipeline.catalog import catalog_colors
from lerar_dask.pipeline.files import as_files, is_kept, keep_file, told_of
from lerar_dask.pipeline.heal import until_whole
from lerar_dask.pipeline.picture_products import plan_files
from lerar_dask.pipeline.picture_report import keep_parts
from lerar_dask.pipeline.picture_sources import work_of_files, work_of_target
from lerar_dask.pipeline.picture_work import PictureSummary, PictureWork
from lerar_dask.pipeline.pictures_kept import pictures_of
from lerar_dask.pipeline.session import Session, stop_on_failure
from lerar_dask.pipeline.settings_file import keep_settings
from lerar_dask.products import report
from lerar_dask.run import Run, RunState, store_of
from lerar_dask.runtime import events, memory
from lerar_dask.runtime.executors import make_executor
from lerar_dask.settings import Settings
from lerar_dask.settings_toml import from_toml
from lerar_dask.stages.picture import deconvolve, finish, linear, measure, psf
from lerar_dask.stages.picture.numbers import balance_of, facts_of, light_limits, tone_of
from lerar_dask.store.access import Store, open_store
from lerar_dask.store.repair import remove_part

__all__ = ["PICTURE_STAGES", "PictureSummary", "PictureWork", "make_pictures"]


def make_pictures(
    out: Path, settings: Settings, *, bus: events.Bus, files: Mapping[str, Path] | None = None
) -> PictureSummary:
    """Make a picture of every target of a run, or of FITS masters.

    Parameters
    ----------
    files : masters of any program by role (L, R, G, B, Ha, OIII, SII, RGB); OUT is then a folder of their own

    Raises
    ------
    LerarError
        when there is no run, or its store cannot be used.
    """
    start = time.monotonic()
    out = Path(out).absolute()
    if files:
        files = {role: Path(path).absolute() for role, path in files.items()}
        check_out(out, files)
        store, state = Store.create(settings.run.store or str(out / "store.zarr")), None
    else:
        store, state = Store.open(store_of(out)), Run.open(out).state
    open_store.cache_clear()
    executor = make_executor(settings.run, settings.slurm, out, [])
    bus.emit(events.RunStarted(out=str(out), threads=executor.slots, budget_bytes=executor.budget_bytes))
    if executor.dashboard:
        bus.emit(events.Note(text=f"dashboard: {executor.dashboard}"))
    try:
        with store.lock(), memory.PeakSampler() as sampler:
            session = Session(store, out, settings, bus, executor)
            with session.writing():
                works = until_whole(session, lambda: _with_whole_masters(session, state, files or {}))
    except OSError as error:
        if full := space_error(error, error.filename or out, writing=True):
            raise full from error
        raise
    finally:
        executor.close()
    seconds = time.monotonic() - start
    summary = PictureSummary(
        out=out, pictures=works, did_nothing=session.n_run == 0, seconds=seconds, peak_bytes=sampler.peak
    )
    bus.emit(events.RunFinished(seconds=seconds, exit_code=summary.exit_code))
    return summary


def check_out(out: Path, files: Mapping[str, Path]) -> None:
    """A folder for a picture of files: new, empty, or one of such pictures."""
    for role, path in files.items():
        if not path.is_file():
            raise UsageError(f"--{role.lower()} {path}: " + ("not a file" if path.exists() else "no such file"))
        if path.parent == out:
            raise UsageError(f"{path} lies in OUT", "give a folder of its own for the picture")
    if (out / "report.html").exists():
        raise UsageError(f"{out} holds a run of lerar stack", "give a new folder for a picture of other masters")
    out.mkdir(parents=True, exist_ok=True)


def _with_whole_masters(session: Session, state: RunState | None, files: Mapping[str, Path]) -> list[PictureWork]:
    """The pictures; damaged parts of a run's masters are taken away and told: what makes them again is another command."""
    try:
        return _run(session, state, files)
    except DamagedError as error:
        lost = [part for part in error.parts if part.startswith("master/")]
        if state is None or not lost:
            raise
        for part in lost:
            remove_part(session.store, part)
        raise StoreError("parts of the run's masters are damaged", "lerar stack makes them again") from error


def _run(session: Session, state: RunState | None, files: Mapping[str, Path]) -> list[PictureWork]:
    if state is None:
        works = [_through(session, lambda: work_of_files(session, files), "picture", alone=True)]
        _forget_others(session, works)
        return works
    names = [
        n for n, t in sorted(state.targets.items()) if t.canvas and any(g.target == n for g in state.groups.values())
    ]
    if not names:
        raise StoreError("the run has no master", "lerar info says why")
    alone = len(names) == 1
    works = [_through(session, partial(work_of_target, session, state, name), name, alone=alone) for name in names]
    if from_toml(session.out / "lerar.toml").products.report:
        _keep_report(session, state, works)
    keep_settings(session.out, lambda kept: dataclasses.replace(kept, picture=session.settings.picture))
    _forget_others(session, works)
    return works


def _forget_others(session: Session, works: Sequence[PictureWork]) -> None:
    """Remove the arrays of pictures that are not these: every change of a setting would leave some behind."""
    if any(work.problem for work in works):
        return
    own = {key for work in works for key in (work.measured, work.linear, work.psf, work.sharp, work.finished)}
    for key in session.store.names("picture"):
        if key not in own:
            session.store.delete(f"picture/{key}")


def _through(session: Session, begin: Callable[[], PictureWork], name: str, *, alone: bool) -> PictureWork:
    """A picture through all stages; with the problem that ended it, if it was one of its masters.

    Parameters
    ----------
    alone : it is the only one: what is wrong with the settings for it is wrong usage
    """
    work = PictureWork(target=name, canvas=Canvas((0, 0), (0, 0)))
    try:
        work = begin()
        for stage in PICTURE_STAGES:
            work = stage(session, work)
    except LerarError as error:
        if type(error) is not LerarError and (alone or not isinstance(error, UsageError)):
            raise
        work = dataclasses.replace(work, problem=f"{error.message} ({error.hint})" if error.hint else error.message)
    return work


# ---------------------------------------------------------------------------------------------------------- the stages


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
    wanted = session.settings.picture
    colors = catalog_colors(wanted.catalog, work.cards, measured.stars) if wanted.catalog else None
    balance = balance_of(measured, work.recipe, wanted, work.canvas.shape, work.saturation, colors)
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
    facts |= _psf_of_lnref(session, work)
    work = dataclasses.replace(work, facts=facts, psf=key)
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


def _psf_of_lnref(session: Session, work: PictureWork) -> dict[str, Any]:
    """The PSF of the LN reference, which the best subs make alone; nothing where it was not written or tells too little."""
    if work.lnref is None or not work.lnref[1].is_file():
        return {}
    (master, path), model = work.lnref, session.settings.picture.psf_model
    key, made_of = f"color/{work.target}/lnref psf", digest("lnref psf", code_of(__name__), master, model)
    record = session.known.get(key)
    if record is None or record["digest"] != made_of:
        whole = open_image(path)
        light = dataclasses.replace(whole, data=whole.data[len(whole.data) // 2 :][:1])  # of three colors the green one
        try:
            found = dataclasses.asdict(psf_of(light, fwhm_px=work.fwhm_px, model=model))
        except UsageError:
            found = {}
        session.note(key, made_of, result=found)
    told = dict(session.known[key]["result"])
    return {"psf_lnref": told} if told else {}


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
    _measure,
    _balance,
    _sharpen,
    _finish,
    _write,
)
"""In the linear order: the stretch comes after all that needs linear light."""
