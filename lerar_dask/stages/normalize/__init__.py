"""Scale and sky of each sub of a group, solved for all together."""
