"""Compiled cores of the tokenizers; the Python form of each is beside the class that uses it."""
