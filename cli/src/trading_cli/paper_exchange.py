"""`trading paper-exchange`: the local exchange's own command."""

from paper_exchange.command import paper_exchange

__all__ = ["paper_exchange"]
