"""What is known of a target and of its groups on the way to their masters: each stage returns it with what it found.

A stage is a function `(session, work) -> work`; the lists of them, `GROUP_STAGES` and `TARGET_STAGES`, are the order.
Results lie in the store under the keys noted here, and whoever needs them loads them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from lerar_dask.grid import Canvas
from lerar_dask.pipeline.session import Session
from lerar_dask.run import GroupState, TargetState
from lerar_dask.stages.normalize.solve import LnReference
from lerar_dask.stages.register.agree import Registration
from lerar_dask.sub import Sub

__all__ = ["GroupWork", "TargetWork", "through"]

Work = TypeVar("Work")


@dataclass(frozen=True, kw_only=True)
class TargetWork:
    """Subs on one grid."""

    name: str
    subs: Sequence[Sub]
    """In order of start and id."""
    summaries: Sequence[Mapping[str, Any]] = ()
    """A few measured numbers of each sub."""
    registration_key: str = ""
    registration: Registration | None = None
    reference: Sub | None = None
    """What sets the grid."""
    canvas: Canvas | None = None
    """None: no sub registers."""
    reasons: Sequence[str] = ()
    """Why each sub is set aside; empty: it is not."""
    ln_reference: LnReference | None = None
    """The image that the user gave for scale and sky."""
    wcs: Mapping[str, Any] | None = None
    """Cards of a plate solution by `--solve`."""
    notes: Sequence[str] = ()
    groups: Mapping[str, GroupWork] = field(default_factory=dict)
    """Those that have come to a master."""
    problems: Mapping[str, str] = field(default_factory=dict)
    """Reasons of groups without a master."""

    @property
    def state(self) -> TargetState:
        """What the run keeps of it."""
        subs = list(self.subs)
        return TargetState(subs=subs, registration=self.registration_key, canvas=self.canvas, wcs=self.wcs)

    @property
    def transforms(self) -> np.ndarray:
        """(n, 3, 3) float64 reference plane to sub."""
        assert self.registration is not None
        return self.registration.transforms

    @property
    def set_aside(self) -> dict[str, str]:
        """Reason by path."""
        return {sub.path: reason for sub, reason in zip(self.subs, self.reasons, strict=True) if reason}


@dataclass(frozen=True, kw_only=True)
class GroupWork:
    """Subs of a target that make one master."""

    target: TargetWork
    name: str
    members: Sequence[int]
    """Indices into the target's subs."""
    canvas: Canvas
    normalization: str = ""
    """Key, as those below."""
    calibrations: Sequence[str | None] = ()
    """Of the calibration set of each sub."""
    table: str = ""
    master: str = ""
    drizzled: str = ""
    lnref: str = ""
    lnref_table: str = ""
    lnref_subs: Sequence[int] = ()
    n_channels: int = 0
    rejected: np.ndarray = field(default_factory=lambda: np.zeros((0, 3), np.int64))
    """(n, 3) int64: samples of each sub rejected low, high, used."""

    @property
    def subs(self) -> list[Sub]:
        """Its subs, in order."""
        return [self.target.subs[i] for i in self.members]

    @property
    def summaries(self) -> list[Mapping[str, Any]]:
        """A few measured numbers of each of them."""
        return [self.target.summaries[i] for i in self.members]

    @property
    def transforms(self) -> np.ndarray:
        """(n, 3, 3) float64 reference plane to each of them."""
        return self.target.transforms[list(self.members)]

    @property
    def state(self) -> GroupState:
        """What the run keeps of it."""
        return GroupState(
            target=self.target.name,
            subs=list(self.members),
            normalization=self.normalization,
            table=self.table,
            master=self.master,
            drizzled=self.drizzled,
            lnref=self.lnref,
            lnref_table=self.lnref_table,
            lnref_subs=list(self.lnref_subs),
            n_channels=self.n_channels,
        )


def through(stages: Sequence[Callable[[Session, Work], Work]], session: Session, work: Work) -> Work:
    """Take work through stages, one after the other."""
    for stage in stages:
        work = stage(session, work)
    return work
