"""Compiled cores of the representations; the plain form of each is beside the class that uses it."""
