"""Lightcone: a causally consistent, active-active key-value store."""

__version__ = "0.1.0"
