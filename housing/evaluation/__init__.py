"""What the test rows say about a model: slices, intervals, harder splits and limitations."""
