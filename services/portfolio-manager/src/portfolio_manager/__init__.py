"""Marks prices, writes snapshots, rebuilds and compares every projection."""
