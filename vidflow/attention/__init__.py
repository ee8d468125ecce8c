"""Attention: one function, kernels (how a device computes) and strategies (how devices share the sequence)."""
