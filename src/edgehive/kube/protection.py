"""The finalizers that keep storage objects while they are in use."""

from typing import Final

CLAIM_IN_USE: Final = "kubernetes.io/pvc-protection"
"""On a PersistentVolumeClaim, until no pod on a node has it."""
VOLUME_IN_USE: Final = "kubernetes.io/pv-protection"
"""On a PersistentVolume, until it is no longer bound."""
