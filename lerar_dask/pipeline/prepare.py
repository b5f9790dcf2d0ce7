"""Before pixels: what is in the night, which masters belong to which light, and where each light goes in the store."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lerar_dask.frames.reader import Frame
from lerar_dask.frames.scan import scan
from lerar_dask.link.match import LightGroup, Links, link_frames
from lerar_dask.settings import Settings
from lerar_dask.stages.ingest import geometry_name
from lerar_dask.stages.masters import CalibrationSet, set_key

__all__ = ["Light", "Night", "survey"]


@dataclass(frozen=True, kw_only=True)
class Light:
    """A light with its group and what it is calibrated with."""

    frame: Frame
    group: str
    target: str
    geometry: str
    calibration: CalibrationSet
    calibration_key: str | None


@dataclass(frozen=True, kw_only=True)
class Night:
    """Everything that is known before a pixel is read."""

    frames: Sequence[Frame]
    links: Links
    groups: Sequence[LightGroup]
    lights: Sequence[Light]
    aside: Sequence[tuple[Frame, str]]


def survey(nights: Iterable[Path], settings: Settings, *, exclude: Sequence[Path] = ()) -> Night:
    """Scan folders, link frames, and name what calibrates each light."""
    frames = scan(list(nights), exclude=list(exclude), settings=settings.link)
    links = link_frames(frames, settings.link)
    return Night(
        frames=frames,
        links=links,
        groups=links.groups,
        lights=[light for group in links.groups for light in _lights_of(group, links, settings)],
        aside=links.aside,
    )


def _lights_of(group: LightGroup, links: Links, settings: Settings) -> Iterable[Light]:
    for frame in group.frames:
        chosen = links.of[frame.path]
        item = CalibrationSet(
            dark=chosen.dark.master if chosen.dark else None,
            bias=chosen.bias.master if chosen.bias else None,
            flat=chosen.flat.master if chosen.flat else None,
            dark_scale=chosen.dark_scale,
            cfa=frame.header.cfa,
            shape=frame.shape,
        )
        bare = not (item.dark or item.bias or item.flat)
        yield Light(
            frame=frame,
            group=group.name,
            target=group.target,
            geometry=geometry_name(frame),
            calibration=item,
            calibration_key=None if bare else set_key(item, links, settings.masters, settings.ingest),
        )
