"""Parquet files → checked, memory-mapped arrays → batches."""
