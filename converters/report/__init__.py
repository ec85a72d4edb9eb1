"""HTML reports and drawings of networks; each page is a single file that loads nothing else."""
