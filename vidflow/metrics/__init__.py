"""Measures of images and videos, and how sure one may be of their means."""
