"""Measurements. Each starts all it needs, and prints how to repeat it."""
