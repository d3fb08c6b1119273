"""What grym_nb costs, beside what its peers cost, in the same run: ``python -m tests.benchmarks``."""
