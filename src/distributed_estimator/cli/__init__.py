"""The command `dest`: one module per verb."""
