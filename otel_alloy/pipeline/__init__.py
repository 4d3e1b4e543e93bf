"""DRIVE: what carries records through the stages."""
