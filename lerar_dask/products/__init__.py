"""What the user takes away: FITS, PNG, report. Plain data in (frozen dataclasses and callables), files out."""
