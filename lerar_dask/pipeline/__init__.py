"""The order of the stages, what is done and what is left.

`stack(nights, out, settings, bus=...)` -> Summary, or DryRun with `dry_run=True`; `link(nights, settings)` -> Links.
"""
