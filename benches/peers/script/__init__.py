"""Remuda beside its peers: what peers.py is made of."""
