"""Velocity networks over spacetime patches."""
