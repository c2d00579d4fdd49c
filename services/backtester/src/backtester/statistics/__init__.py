"""How much a ratio of a short history can be trusted."""
