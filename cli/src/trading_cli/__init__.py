"""The trading command: the only place that composes services in one process."""
