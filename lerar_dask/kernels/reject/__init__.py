"""Which samples of a pixel are left out."""
