"""Where candles come from: one port, several feeds."""
