"""Merge: search over the weights with which adapters are added."""
