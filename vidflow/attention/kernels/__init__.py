"""How one device computes attention."""
