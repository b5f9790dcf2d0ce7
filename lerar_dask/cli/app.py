"""The command `lerar`: choice of the command, one line for every error, exit codes, and how it is stopped.

Exit codes: 0 done; 1 the run cannot go on, or something failed; 2 wrong usage; 130 Ctrl-C; 143 SIGTERM; 141 a closed
pipe.
Commands are loaded when they are called: `lerar --help` imports no numpy.
"""

from __future__ import annotations

import gc
import io
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from cyclopts import App, ArgumentCollection, CycloptsError

from lerar_dask.cli import stopping
from lerar_dask.cli.text import say
from lerar_dask.errors import LerarError

__all__ = ["app", "main", "run"]


def _version() -> str:
    from lerar_dask import __version__

    return f"lerar {__version__}"


def _fill(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    from lerar_dask.cli.sources import fill

    fill(app, commands, arguments)


app = App(
    name="lerar",
    usage="Usage: lerar COMMAND",
    help="Stack astronomical sub-exposures, ten or ten thousand, into a locally normalized master.",
    help_format="plaintext",  # markdown costs 60 ms to import, and this page has none
    version=_version,
    config=_fill,
    result_action="return_value",
    suppress_keyboard_interrupt=False,
)
_GC_EVERY = 200_000
"""New objects between searches for garbage. At Python's 700, a tenth of the start is spent with them; loading the modules
makes so many objects that at 50,000 there were still six searches in a small night, of a hundredth of a second each."""
_COMMANDS = {
    "stack": ("NIGHT... -o OUT", "Stack folders of raw frames into masters, pictures and a report."),
    "link": ("NIGHT...", "Show which dark, flat and bias each light gets, and why."),
    "simulate": ("DIR", "Make a night with known truth."),
    "mosaic": ("MASTERS... -o OUT", "Join masters that were made apart to a mosaic without seams."),
    "picture": ("OUT", "Make a color picture of the masters of a run."),
    "stage": ("STAGE OUT", "Do one stage of a run, or a part of it: for job arrays of any batch system."),
    "check": ("OUT", "Verify the store of a run, and say what would be made again."),
    "clean": ("OUT", "Free what a store holds of earlier settings and frames."),
    "info": ("OUT", "Show what is in a run: frames, fates and reasons, masters, settings, sizes, damage."),
}
_STEPS = {
    "combine": ("R.fits G.fits B.fits -o OUT.fits", "Join three images as the channels of a color space."),
    "neutralize": ("IMAGE.fits -o OUT.fits", "Bring the sky of all channels to one level; linear."),
    "balance": ("IMAGE.fits -o OUT.fits", "Balance the white by the stars; linear."),
    "deconvolve": ("L.fits -o OUT.fits", "Take the blur of the stars out of a luminance; linear."),
    "stretch": ("IMAGE.fits -o OUT.fits", "Make a linear image visible."),
    "lrgb": ("L.fits RGB.fits -o OUT.fits", "Join a luminance with colors."),
    "scnr": ("IMAGE.fits -o OUT.fits", "Take green off that is more than neutral; stretched."),
    "chroma": ("IMAGE.fits -o OUT.fits", "Smooth the color of dark parts; stretched."),
}
"""Steps of a picture on files, all in one module."""
_MODULES = dict.fromkeys(_STEPS, "steps") | {"check": "keep", "clean": "keep"}
for _name, (_arguments, _help) in (_COMMANDS | _STEPS).items():
    _module = _MODULES.get(_name, _name)
    _usage = f"Usage: lerar {_name} {_arguments} [OPTIONS]"
    app.command(f"lerar_dask.cli.{_module}:{_name}", name=_name, help=_help, usage=_usage, help_format="markdown")


def main() -> NoReturn:
    """Entry point of the installed command."""
    gc.set_threshold(_GC_EVERY, 20, 50)
    for library in ("OPENBLAS", "MKL", "OMP"):
        # Our tasks are the threads; each BLAS that numpy and scipy bring would start as many more, and keep them busy.
        os.environ.setdefault(f"{library}_NUM_THREADS", "1")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Names of files may be no text, or of letters that the terminal does not know.
            stream.reconfigure(errors="backslashreplace")
    code = run(sys.argv[1:])
    stopping.exit_at_once(code)


def run(words: Sequence[str]) -> int:
    """Run one command line; returns the exit code. Every error ends as one line (and a hint) on stderr."""
    with stopping.signals():
        try:
            result = app(list(words), exit_on_error=False, print_error=False)
            sys.stdout.flush()
            return result if isinstance(result, int) else 0
        except CycloptsError as error:
            command = next((f" {word}" for word in words[:1] if word in _COMMANDS | _STEPS), "")
            return _say(
                words, str(error), f"`lerar{command} --help` lists {'options' if command else 'commands'}", code=2
            )
        except LerarError as error:
            return _say(words, error.message, error.hint, code=error.exit_code)
        except KeyboardInterrupt:
            return stopping.interrupted()
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 141
        except SystemExit as leaving:
            return leaving.code if isinstance(leaving.code, int) else 1
        except Exception as error:
            return _fault(words, error)


def _say(words: Sequence[str], message: str, hint: str, *, code: int) -> int:
    """One line on stderr, and one for programs on stdout when they asked for it."""
    message = " ".join(message.split())
    say(f"lerar: {message}", file=sys.stderr)
    if hint:
        say(f"hint: {hint}", file=sys.stderr)
    if "--json" in words:
        from lerar_dask.cli.display import print_json

        print_json("error", message=message, hint=hint, exit_code=code)
    return code


def _fault(words: Sequence[str], error: Exception) -> int:
    """An error that no user can cause on purpose: one line, and the details where they do not frighten."""
    from lerar_dask.cli.log import write_fault
    from lerar_dask.runtime.memory import out_of_memory

    if out_of_memory(error):
        what = f"there is no memory left, or no more threads may be started ({error or 'MemoryError'})"
        hint = "raise the limits (ulimit -v, ulimit -u), or give less --memory and fewer --threads"
        return _say(words, f"{what}; details in {write_fault(error)}", hint, code=1)
    what = f"this is a fault of lerar: {type(error).__name__}: {error}; details in {write_fault(error)}"
    return _say(words, what, "", code=1)
