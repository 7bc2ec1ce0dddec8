"""The engines `stream` and `dask`: tables larger than memory, which are read in chunks."""
