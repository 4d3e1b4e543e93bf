"""REMEMBER: what is settled."""
