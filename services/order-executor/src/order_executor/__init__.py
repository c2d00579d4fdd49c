"""Turns signals into orders behind risk checks."""
