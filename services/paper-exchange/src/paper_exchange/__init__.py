"""A Binance-compatible exchange on localhost, for rehearsals and tests without a key."""
