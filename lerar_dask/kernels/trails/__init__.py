"""Straight lines of satellites and planes in single subs."""
