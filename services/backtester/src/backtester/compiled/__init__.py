"""The compiled engine: a strategy's own step, the matching and the sub-account in one machine-code loop."""
