"""How star lists and frames lie on one another."""
