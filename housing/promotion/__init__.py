"""Challenger against champion: checks, verdict, alias and history."""
