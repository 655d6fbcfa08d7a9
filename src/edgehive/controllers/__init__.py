"""Scheduler and controllers of the embedded control plane."""
