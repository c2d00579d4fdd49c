"""The floor every service stands on: models, domain rules, strategy contract and plumbing."""
