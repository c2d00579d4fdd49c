"""Runs plug-in strategies over closed candles."""
