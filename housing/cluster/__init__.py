"""Work on several machines: a connection to a Dask cluster."""
