"""Work on a Dask cluster: the connection, the jobs of a sweep, a fit, and batch prediction."""
