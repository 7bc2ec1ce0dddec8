"""What every package stands on: errors, atomic files, checked settings, locks, processes and the Hydra glue."""
