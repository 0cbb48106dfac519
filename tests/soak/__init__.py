"""Long tests on real processes, outside CI: `python -m tests.soak --help`."""
