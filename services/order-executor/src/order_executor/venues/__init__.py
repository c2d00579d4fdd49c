"""Where orders go: the port that a network venue implements."""
