"""edgecore: the edge's half of the system."""
