"""`python -m lerar_dask` is `lerar`."""

from lerar_dask.cli.app import main

if __name__ == "__main__":
    main()
