"""What a running receiver tells of itself."""
