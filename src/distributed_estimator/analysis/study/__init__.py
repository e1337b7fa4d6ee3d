"""A study's records as tables, figures and what they say."""
