"""The parts of `make bench`; benches/bench.py combines them."""
