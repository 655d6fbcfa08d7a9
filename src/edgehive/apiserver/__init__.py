"""A Kubernetes-compatible HTTP API over a store."""
