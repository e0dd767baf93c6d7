"""W&B and trackio as mirrors of runs, live and from records."""
