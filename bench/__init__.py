"""Measure the platform: figures for docs/figures.md, long load and fault runs. `python -m bench --help` says how."""
