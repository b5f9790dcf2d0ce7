"""Before pixels: what is in the night, which masters belong to which light, and where each light goes in the store."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lerar_dask.frames.frame import Frame
from lerar_dask.frames.scan import scan
from lerar_dask.link.match import LightGroup, LightLink, Links, link_frames
from lerar_dask.settings import Settings
from lerar_dask.stages.calibrate.masters import CalibrationSet, set_key
from lerar_dask.stages.ingest import Item, geometry_name, raw_digest

__all__ = ["Light", "Night", "gone_lights", "items_of", "survey", "survey_frames", "without_frames"]


@dataclass(frozen=True, kw_only=True)
class Light:
    """A light with its group and what it is calibrated with."""

    frame: Frame
    group: LightGroup
    geometry: str
    calibration: CalibrationSet
    calibration_key: str | None


@dataclass(frozen=True, kw_only=True)
class Night:
    """Everything that is known before a pixel is read."""

    links: Links
    lights: Sequence[Light]
    frames: Sequence[Frame]
    """All that was found, of whatever kind."""
    unfit: Mapping[Path, str]
    """Frames that were found to be of no use, or too large for the memory, with the reason."""

    @property
    def sets(self) -> dict[str, CalibrationSet]:
        """Calibration sets by key."""
        return {light.calibration_key: light.calibration for light in self.lights if light.calibration_key}

    @property
    def used_masters(self) -> set[str]:
        """Names of the masters that some light needs, with what these need themselves."""
        names = {n for s in self.sets.values() for n in (s.dark, s.bias, s.flat) if n}
        return names | {p for n in names if (p := self.links.masters[n].pedestal)}

    @property
    def notes(self) -> list[str]:
        """What is to be said of the links, each sentence once."""
        rows = (note for row in self.links.explain() for note in row["notes"])
        return sorted({*rows, *self.links.notes})


def survey(nights: Iterable[Path], settings: Settings, *, exclude: Sequence[Path] = ()) -> Night:
    """Scan folders, link frames, and name what calibrates each light."""
    return survey_frames(scan(list(nights), exclude=exclude).frames, settings)


def survey_frames(frames: Sequence[Frame], settings: Settings) -> Night:
    """Link frames that are known, and name what calibrates each light."""
    return _linked(frames, settings, {})


def without_frames(night: Night, bad: Mapping[str, str], settings: Settings) -> Night:
    """The night linked again with frames set aside.

    Parameters
    ----------
    bad : reasons by path
    """
    return _linked(night.frames, settings, {**night.unfit, **{Path(path): reason for path, reason in bad.items()}})


def _linked(frames: Sequence[Frame], settings: Settings, unfit: Mapping[Path, str]) -> Night:
    links = link_frames(frames, settings.link, unfit=unfit)
    lights = [_light(frame, group, links, settings) for group in links.groups for frame in group.frames]
    return Night(links=links, lights=lights, frames=frames, unfit=unfit)


def items_of(
    lights: Sequence[Light], known: Mapping[str, Mapping[str, Any]], is_stored: Callable[[str, int], bool]
) -> list[Item]:
    """Places in the store: those of lights that the ledger knows, new ones behind them.

    Parameters
    ----------
    known : records of the ledger by key
    is_stored : (geometry, slot): whether the pixels of a sub lie in the store, and what its header says
    """
    places: dict[str, int] = {}
    taken: dict[str, int] = {}
    for record in known.values():
        result = record.get("result") or {}
        if record["key"].startswith("ingest/") and "slot" in result:
            taken[result["geometry"]] = max(taken.get(result["geometry"], -1), result["slot"])
    for light in lights:
        result = _earlier(light, known)
        if result is not None:
            places[str(light.frame.path)] = result["slot"]
    items = []
    for light in lights:
        path = str(light.frame.path)
        slot = places.get(path)
        if slot is None:
            slot = taken[light.geometry] = taken.get(light.geometry, -1) + 1
        items.append(
            Item(
                frame=light.frame,
                geometry=light.geometry,
                slot=slot,
                calibration=light.calibration_key,
                raw_done=path in places and is_stored(light.geometry, slot),
            )
        )
    return items


def gone_lights(night: Night, nights: Sequence[Path], known: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Lights of earlier calls below the same folders whose file is not there any more, with that as the reason.

    Their pixels stay in the store, and are used again when the file comes back.
    """
    here = {str(frame.path) for frame in night.frames}
    gone = {}
    for record in known.values():
        kind, _, path = record["key"].partition("/")
        if kind != "ingest" or record["state"] != "done" or path in here:
            continue
        if any(Path(path).is_relative_to(folder) for folder in nights) and not Path(path).exists():
            gone[path] = "its file is gone"
    return gone


def _earlier(light: Light, known: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Result of an earlier ingest of this very file (path, size, time)."""
    record = known.get(f"ingest/{light.frame.path}")
    if not record or record["state"] != "done" or record["result"].get("raw") != raw_digest(light.frame):
        return None
    return record["result"] if record["result"]["geometry"] == light.geometry else None


def _turned(frame: Frame, chosen: LightLink, links: Links) -> tuple[str, ...]:
    """Kinds of masters whose rows run the other way than the light's."""
    own = frame.header.row_order
    orders = {
        kind: links.masters[choice.master].sample.header.row_order
        for kind, choice in (("dark", chosen.dark), ("bias", chosen.bias), ("flat", chosen.flat))
        if choice is not None
    }
    return tuple(kind for kind, order in orders.items() if own and order and order != own)


def _light(frame: Frame, group: LightGroup, links: Links, settings: Settings) -> Light:
    chosen = links.of[frame.path]
    item = CalibrationSet(
        dark=chosen.dark.master if chosen.dark else None,
        bias=chosen.bias.master if chosen.bias else None,
        flat=chosen.flat.master if chosen.flat else None,
        dark_scale=chosen.dark_scale,
        cfa=frame.header.cfa,
        shape=frame.shape,
        dark_less_bias=chosen.dark_less_bias,
        turned=_turned(frame, chosen, links),
        bare=chosen.dark is not None and "B" in links.masters[chosen.dark.master].done,
    )
    if not item.needs_bias:
        item = replace(item, bias=None)
    bare = not (item.dark or item.bias or item.flat)
    return Light(
        frame=frame,
        group=group,
        geometry=geometry_name(frame),
        calibration=item,
        calibration_key=None if bare else set_key(item, links, settings.masters, settings.ingest),
    )
