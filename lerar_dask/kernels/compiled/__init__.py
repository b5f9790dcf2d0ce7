"""Compiled kernels: kept only while the text is the same (`fresh`), and made beside the first run (`ahead`)."""
