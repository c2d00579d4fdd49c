"""The sweep: one strategy over a grid of parameters, many sets stepped together, and what noise would have given."""
