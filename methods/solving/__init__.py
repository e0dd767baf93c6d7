"""What solvers share: sweeps over columns, factors of Hessians, ranges, refits."""
