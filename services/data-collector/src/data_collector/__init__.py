"""Collects candles from a feed, stores and publishes them."""
