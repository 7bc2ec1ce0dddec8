"""Plugins of this project; Hydra looks for them only here."""
