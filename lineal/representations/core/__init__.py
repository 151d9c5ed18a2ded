"""Compiled cores of representations; the Python form of each is beside the class that uses it."""
