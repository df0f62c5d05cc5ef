"""Parts of `make bench`; benches/bench.py tells how they go together."""
