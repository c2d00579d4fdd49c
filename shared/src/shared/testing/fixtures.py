"""Pytest fixtures for every member of the workspace."""
