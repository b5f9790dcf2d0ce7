"""An image on its way to a picture, and the order in which steps are done."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from lerar_dask.errors import UsageError

if TYPE_CHECKING:
    import dask.array as da

__all__ = ["ORDER", "Image", "needs", "needs_color", "same_size", "same_state"]

ORDER = (
    "ChannelCombination",
    "BackgroundNeutralization",
    "white balance",
    "deconvolution",
    "HistogramTransformation",
    "LRGBCombination",
    "SCNR",
    "noise of colors",
)
"""Steps of a picture; all before HistogramTransformation need linear light."""


@dataclass(frozen=True, kw_only=True)
class Image:
    """An image on its way to a picture."""

    data: da.Array
    """(channel, y, x) float32, lazily; NaN: no data."""
    state: Literal["linear", "stretched"] = "linear"
    history: tuple[str, ...] = ()
    """What was done, a line per step."""
    cards: Mapping[str, Any] = field(default_factory=dict)
    """Header words that are carried."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, rows, columns."""
        return self.data.shape  # type: ignore[no-any-return]

    def then(self, data: da.Array, line: str, **changed: Any) -> Image:
        """The image after a step."""
        return dataclasses.replace(self, data=data, history=(*self.history, line), **changed)


def needs(image: Image, state: str, step: str) -> None:
    """Refuse a step out of its order."""
    if image.state != state:
        raise UsageError(
            f"{step} needs a {state} image, and this one is {image.state}", f"the order is {', '.join(ORDER)}"
        )


def needs_color(image: Image, step: str) -> None:
    """Refuse what has no three channels."""
    if image.shape[0] != 3:
        raise UsageError(f"{step} needs an image of three channels", "ChannelCombination makes one")


def same_size(images: Sequence[Image]) -> None:
    """Refuse images of several sizes."""
    sizes = sorted({f"{i.shape[2]} x {i.shape[1]}" for i in images})
    if len(sizes) > 1:
        raise UsageError(
            f"images of {' and '.join(sizes)} pixels cannot be combined",
            "`lerar picture --r ... --g ...` registers them",
        )


def same_state(images: Sequence[Image]) -> None:
    """Refuse linear and stretched images together."""
    if len({i.state for i in images}) > 1:
        raise UsageError("linear and stretched images cannot be combined", f"the order is {', '.join(ORDER)}")
