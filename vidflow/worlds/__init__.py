"""Procedural worlds: endless captioned videos in which the truth is known."""
