"""Hydra plugins of this project: sweepers and launchers. Hydra finds plugins only in this namespace."""
