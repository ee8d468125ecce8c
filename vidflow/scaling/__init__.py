"""Scaling: what a model costs, and the laws fitted to what it returns."""
