"""What people look at: progress, tables, the demo."""
