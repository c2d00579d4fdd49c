"""Pure money decisions: no clock, no log, no await."""
