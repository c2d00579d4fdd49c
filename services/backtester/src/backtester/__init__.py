"""Runs strategies over history and reports honestly."""
