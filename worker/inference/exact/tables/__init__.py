"""The two tables of specification 1 (data), and `generate.py`, which made them."""
