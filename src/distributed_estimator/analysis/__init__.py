"""What the records of a run say: totals, tables and figures. Reads records and nothing else."""
