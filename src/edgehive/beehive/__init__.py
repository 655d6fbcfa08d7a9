"""The in-process bus on which the modules of one process talk."""
