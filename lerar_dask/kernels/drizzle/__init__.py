"""Drizzle: the pixels of subs as small drops onto a finer grid."""
