"""Evaluations: what is played, what is recorded of it, and the figures that come of it. Playing is in the trainers."""
