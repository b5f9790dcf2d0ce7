"""Pixels on their way into files and pictures."""
