"""What a run tells its caller: the summary of `stack`, the plan of a dry run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["DryRun", "GroupPlan", "GroupSummary", "Summary"]


@dataclass(frozen=True, kw_only=True)
class GroupSummary:
    """One master."""

    name: str
    n_used: int
    n_aside: int
    exposure_s: float
    """Total exposure in the master."""
    master: Path | None
    preview: Path | None
    drizzled: Path | None = None
    """The drizzled master, where one was asked for."""
    lnref: Path | None = None
    """The LN reference, where it was asked for."""
    problem: str = ""
    """Why there is no master, or empty."""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """A finished run."""

    out: Path
    groups: Sequence[GroupSummary]
    n_lights: int
    n_used: int
    n_aside: int
    n_failed: int
    aside: Sequence[tuple[str, str]]
    """Path and reason of every frame that was set aside."""
    did_nothing: bool
    """All was there already."""
    seconds: float
    peak_bytes: int
    read_bytes: int
    written_bytes: int
    report: Path | None
    notes: Sequence[str] = ()

    @property
    def exit_code(self) -> int:
        """0 when every group has its master and nothing failed."""
        return 1 if self.n_failed or any(g.problem for g in self.groups) or not self.groups else 0


@dataclass(frozen=True, kw_only=True)
class GroupPlan:
    """What would be done for one group."""

    name: str
    n_lights: int
    n_new: int
    """Lights that are not in the store yet."""
    shape: tuple[int, int]
    exposure_s: float
    links: Sequence[str]
    """Lines that say which masters are used, and why."""
    strip_rows: int
    """Rows of a chunk that are integrated at once within the memory given."""


@dataclass(frozen=True, kw_only=True)
class DryRun:
    """What `stack` would do."""

    out: Path
    groups: Sequence[GroupPlan]
    aside: Sequence[tuple[str, str]]
    masters: Sequence[str]
    tasks: dict[str, int] = field(default_factory=dict)
    """Tasks per stage."""
    read_bytes: int = 0
    written_bytes: int = 0
    requests: int = 0
    """To a store in a bucket, about."""
    store: str = ""
    memory_bytes: int = 0
    """Predicted peak."""
    budget_bytes: int = 0
    seconds: float = 0.0
    """Estimated wall time."""
    threads: int = 1
