"""edgehive: Kubernetes-native edge computing, compatible with KubeEdge both ways."""

__version__ = "0.1.0"
