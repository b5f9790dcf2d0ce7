"""Single steps of a picture on FITS files: `lerar combine`, `neutralize`, `balance`, `deconvolve`, `stretch` and others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from lerar_dask.cli.text import say
from lerar_dask.errors import UsageError

if TYPE_CHECKING:
    from lerar_dask.image import Image

__all__ = ["balance", "chroma", "combine", "deconvolve", "lrgb", "neutralize", "scnr", "stretch"]

Out = Annotated[Path, Parameter(name=["--out", "-o"])]


def combine(
    first: Annotated[Path, Parameter(name="FIRST")],
    second: Annotated[Path, Parameter(name="SECOND")],
    third: Annotated[Path, Parameter(name="THIRD")],
    /,
    *,
    out: Out,
    space: Literal["rgb", "hsv", "hsi", "xyz", "lab", "lch"] = "rgb",
) -> int:
    """Join three images as the components of a color space (ChannelCombination).

    Parameters
    ----------
    first
        FITS of the first component: red, hue, X or lightness.
    second
        FITS of the second component.
    third
        FITS of the third component.
    out
        FITS to be written.
    space
        Color space; components of others than rgb are in 0..1.
    """
    from lerar_dask import image as steps

    return _save(steps.combine([steps.open_image(p) for p in (first, second, third)], space=space), out)


def neutralize(
    image: Annotated[Path, Parameter(name="IMAGE")],
    /,
    *,
    out: Out,
    mode: Literal["zero", "target", "rescale", "rescale-as-needed", "truncate"] = "zero",
    target: float = 0.001,
    region: str = "",
) -> int:
    """Bring the sky of all channels to one level (BackgroundNeutralization); linear images only.

    Parameters
    ----------
    image
        FITS of three channels.
    out
        FITS to be written.
    mode
        zero keeps values below the sky; target lifts the sky; rescale brings all to 0..1; truncate cuts.
    target
        Level of the sky in the mode target.
    region
        Rectangle that is sky, as "x0,y0,x1,y1"; empty: the darkest object-free tiles.
    """
    from lerar_dask import image as steps

    box = _numbers(region, 4, "region") if region else None
    where = None if box is None else (int(box[0]), int(box[1]), int(box[2]), int(box[3]))
    return _step(image, out, lambda one: steps.neutralize(one, mode=mode, target=target, region=where))


def balance(
    image: Annotated[Path, Parameter(name="IMAGE")],
    /,
    *,
    out: Out,
    white: Literal["stars", "g2v", "spiral"] = "stars",
    factors: str = "",
    fwhm_px: float = 3.0,
) -> int:
    """Balance the white by the stars of the image, or by factors; linear images only.

    Parameters
    ----------
    image
        FITS of three channels with its sky at 0.
    out
        FITS to be written.
    white
        What is white: the usual star, the Sun, an average spiral galaxy.
    factors
        Factors of red, green and blue, as "1.2,1,1.4".
    fwhm_px
        Width of the stars, in pixels.
    """
    from lerar_dask import image as steps

    given = _numbers(factors, 3, "factors") if factors else None
    return _step(image, out, lambda one: steps.balance(one, white=white, factors=given, fwhm_px=fwhm_px))


def deconvolve(
    image: Annotated[Path, Parameter(name="IMAGE")],
    /,
    *,
    out: Out,
    psf_of: Path | None = None,
    model: Literal["moffat", "gaussian"] = "moffat",
    fwhm_px: float = 3.0,
    iterations: int = 30,
    deringing: float = 1.0,
    saturation: float = float("inf"),
) -> int:
    """Take the blur of the stars' profile out of an image of one channel; linear images only.

    Parameters
    ----------
    image
        FITS of one channel.
    out
        FITS to be written.
    psf_of
        FITS on the same scale whose stars tell the PSF; the image itself without it.
    model
        Profile that is fitted to the stars.
    fwhm_px
        Width of the stars, in pixels.
    iterations
        Most iterations; it ends before when nothing above the noise is left.
    deringing
        How far dark rings about stars are lifted: 0 not at all, 1 to what lay there before.
    saturation
        Value from which on a pixel is saturated.
    """
    from lerar_dask import image as steps

    profile = None
    if psf_of is not None:
        profile = steps.psf_of(steps.open_image(psf_of), fwhm_px=fwhm_px, model=model, saturation=saturation)
    return _step(
        image,
        out,
        lambda one: steps.deconvolve(
            one,
            psf=profile,
            iterations=iterations,
            deringing=deringing,
            fwhm_px=fwhm_px,
            model=model,
            saturation=saturation,
        ),
    )


def stretch(
    image: Annotated[Path, Parameter(name="IMAGE")],
    /,
    *,
    out: Out,
    kind: Literal["histogram", "arcsinh", "hyperbolic"] = "histogram",
    shadows: float | None = None,
    midtones: float = 0.5,
    highlights: float = 1.0,
    strength: float = 100.0,
    unlinked: Annotated[bool, Parameter(negative="")] = False,
    target: float = 0.25,
    white: float | None = None,
) -> int:
    """Make a linear image visible (HistogramTransformation); once, and last of what needs linear light.

    Parameters
    ----------
    image
        FITS.
    out
        FITS, PNG, TIFF or JPEG to be written.
    kind
        Curve.
    shadows
        Value that becomes black, where white is 1; without it shadows and midtones follow from sky and noise.
    midtones
        Value between shadows (0) and highlights (1) that becomes half.
    highlights
        Value that becomes white.
    strength
        Of arcsinh and hyperbolic.
    unlinked
        A curve for each channel.
    target
        Brightness of the sky.
    white
        Pixel value that is 1; the largest of the image without it.
    """
    from lerar_dask import image as steps
    from lerar_dask.kernels.picture.stretch import Histogram

    curve = None if shadows is None else Histogram(shadows=shadows, midtones=midtones, highlights=highlights)
    return _step(
        image,
        out,
        lambda one: steps.stretch(
            one, kind=kind, curve=curve, strength=strength, linked=not unlinked, target=target, white=white
        ),
    )


def lrgb(
    luminance: Annotated[Path, Parameter(name="LUMINANCE")],
    color: Annotated[Path, Parameter(name="COLOR")],
    /,
    *,
    out: Out,
    lightness: float = 0.5,
    saturation: float = 0.5,
) -> int:
    """Join a luminance with colors: two stretched images (LRGBCombination), or two linear ones.

    Parameters
    ----------
    luminance
        FITS of one channel.
    color
        FITS of three channels, on the same grid and in the same state.
    out
        File to be written.
    lightness
        Midtones of the lightness; less is brighter.
    saturation
        Midtones of the saturation; less is more colorful.
    """
    from lerar_dask import image as steps

    joined = steps.join_luminance(
        steps.open_image(luminance), steps.open_image(color), lightness=lightness, saturation=saturation
    )
    return _save(joined, out)


def scnr(
    image: Annotated[Path, Parameter(name="IMAGE")],
    /,
    *,
    out: Out,
    protection: Literal["average", "maximum", "minimum", "maximum-mask", "additive-mask"] = "average",
    amount: float = 1.0,
) -> int:
    """Take green off that is more than neutral (SCNR); stretched images only.

    Parameters
    ----------
    image
        FITS of three channels.
    out
        File to be written.
    protection
        What is neutral.
    amount
        Share of the surplus.
    """
    from lerar_dask import image as steps

    return _step(image, out, lambda one: steps.reduce_green(one, protection=protection, amount=amount))


def chroma(
    image: Annotated[Path, Parameter(name="IMAGE")], /, *, out: Out, layers: int = 4, protect: float = 0.5
) -> int:
    """Smooth the color of dark parts, lightness as it is; stretched images only.

    Parameters
    ----------
    image
        FITS of three channels.
    out
        File to be written.
    layers
        Layers of fine detail that are taken out, each twice as coarse as the one before.
    protect
        Lightness from which on color stays.
    """
    from lerar_dask import image as steps

    return _step(image, out, lambda one: steps.reduce_chroma_noise(one, layers=layers, protect=protect))


def _step(path: Path, out: Path, step: Callable[[Image], Image]) -> int:
    from lerar_dask.image import open_image

    return _save(step(open_image(path)), out)


def _save(image: Image, out: Path) -> int:
    from lerar_dask.image import save_image

    save_image(image, out)
    say(f"{image.history[-1]}")
    say(f"{out}: {image.shape[2]} x {image.shape[1]} px, {image.state}")
    return 0


def _numbers(text: str, n: int, name: str) -> Sequence[float]:
    try:
        values = [float(v) for v in text.split(",")]
    except ValueError:
        values = []
    if len(values) != n:
        raise UsageError(f"--{name} {text!r}: {n} numbers are needed, with commas between")
    return values
