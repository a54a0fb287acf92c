"""What the README claims, measured: `make bench`. See `python -m benchmarks --help`."""
