"""From records to tables and figures: reads what runs left, and imports neither torch nor model code."""
