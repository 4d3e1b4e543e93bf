"""Settings: what there is, where values come from. Nothing here connects to anything."""
