"""The device twin: what is known of a device at the edge, and the rules by which it changes.

Bytes and decisions only; `edge.devicetwin` is the shell. Compatible with KubeEdge's ``$hw/events`` topics and JSON.
"""
