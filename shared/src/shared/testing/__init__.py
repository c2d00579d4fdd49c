"""Fakes, builders and fixtures, real servers included."""
