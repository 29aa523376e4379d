"""Deterministic simulation: whole clusters on virtual time, each decided by one seed."""
