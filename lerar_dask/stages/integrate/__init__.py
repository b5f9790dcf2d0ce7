"""From raw subs to a chunk of the master in one pass, and the table that says all it must know."""
