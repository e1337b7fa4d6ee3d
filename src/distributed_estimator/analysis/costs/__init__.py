"""What queries cost: laws fitted to records."""
