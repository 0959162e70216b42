"""Breaks the product in small ways, and says which of them no test notices."""
