"""Local normalization: one scene, a scale and a smooth sky per sub, solved for all subs together."""
