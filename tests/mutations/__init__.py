"""Deliberate breaks of the store, each of which the simulation must notice."""
