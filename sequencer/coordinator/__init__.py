"""Coordinates the workers: who is attached, what they are asked, and what becomes of jobs."""
