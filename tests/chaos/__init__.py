"""Chaos on real nodes: processes that are killed, stopped, cut apart and filled up, under load."""
