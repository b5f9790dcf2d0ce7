"""From samples that are kept to a pixel, its noise and its counts."""
