"""Compiled kernels: kept only while the text is the same (`cache`), and made beside the first run (`precompile`)."""
