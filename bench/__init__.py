"""Speed, measured side by side: `python -m bench`, or `make bench`. What is measured and why: docs/benchmarks.md."""
