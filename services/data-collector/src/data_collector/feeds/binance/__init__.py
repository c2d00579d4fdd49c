"""Binance's market data: combined streams for what happens, REST for what has happened."""
