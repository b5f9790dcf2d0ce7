"""Stages of the picture: what masters tell, their linear colors, the finished picture."""
