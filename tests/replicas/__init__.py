"""Several replicas that share their work in a real PostgreSQL."""
