"""Every number of every run. A package, so that Hydra finds it in an installed wheel as `pkg://conf`."""
