"""DESTINATIONS: each customer's executions to that customer's own endpoint, beside the main one."""
