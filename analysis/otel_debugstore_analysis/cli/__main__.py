"""`python -m otel_debugstore_analysis.cli` is `debugstore`."""

from otel_debugstore_analysis.cli import main

if __name__ == "__main__":
    main()
