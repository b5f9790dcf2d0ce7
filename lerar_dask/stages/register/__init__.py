"""Where each sub lies on the grid of its target: the reference, matches, and what all agree on."""
