"""The built-in resources, one row each."""

from edgehive.kube.resources import ResourceInfo

BUILTIN: tuple[ResourceInfo, ...] = ()
"""Every built-in resource; schemas are built on first use."""
