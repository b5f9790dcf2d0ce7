"""Looking on while a dask cluster works: the link of its dashboard, and its performance report as a page of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lerar_dask.errors import LerarError, UsageError

__all__ = ["Watching"]


class Watching:
    """What is to be seen of a client's cluster.

    Parameters
    ----------
    report : page that is written when the run ends; None: none
    """

    def __init__(self, client: Any, *, dashboard: bool, report: Path | None) -> None:
        self._client, self._report = client, None
        self.link = _link(client) if dashboard else ""
        """Address of the dashboard; empty: it was not asked for."""
        if report is not None:
            from distributed import performance_report

            _check(report)
            with client.as_current():
                self._report = performance_report(str(report), mode="inline")
                self._report.__enter__()

    def close(self) -> None:
        """Write the report, as far as the scheduler is still there to tell."""
        if self._report is None:
            return
        try:
            with self._client.as_current():
                self._report.__exit__(None, None, None)
        except Exception as error:  # the run itself has ended by now, well or not
            raise LerarError(f"the performance report could not be written ({error})") from error


def _link(client: Any) -> str:
    """Address of a scheduler's dashboard."""
    link = client.dashboard_link
    if not link:
        raise UsageError(
            "--dashboard: this scheduler has none", "start it with bokeh installed and a dashboard address"
        )
    return str(link)


def _check(report: Path) -> None:
    """Refuse a place that cannot be written before anything runs."""
    if report.is_dir() or not report.absolute().parent.is_dir():
        raise UsageError(f"--performance-report {report}: give a file in a folder that is there")
