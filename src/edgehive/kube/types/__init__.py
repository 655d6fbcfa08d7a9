"""The types of the built-in kinds, as compact tables that `kube.types.table` turns into schemas."""
