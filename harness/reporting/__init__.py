"""From records to tables and figures. Reads what runs left behind; imports neither torch nor any model code."""
