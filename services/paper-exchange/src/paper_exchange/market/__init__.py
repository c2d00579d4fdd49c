"""The market behind the exchange: candles, the trades they are made of, and the time at which they happen."""
