"""The prediction log: append, rotate, find and read answered requests."""
