"""cloudcore: the cloud's half of the system."""
