"""Runs programs that a model wrote, contained. Needs the standard library only; see sandbox.py."""
