"""A window of a sub on rows of the canvas: calibrated, repaired, interpolated, masked."""
