# What people and CI run. Everything a target needs beyond Rust is installed by tests/install-tools.sh.
.DELETE_ON_ERROR:
.PHONY: help demo test test-long bench format lint docs tools golden chart clean

CARGO := cargo
export CARGO_TERM_COLOR ?= auto

help: ## Shows the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: ## Runs the exporter against a simulated building
	$(CARGO) run --release --locked -- demo

test: tools format lint docs ## Runs every check
	$(CARGO) test --locked

test-long: tools ## Runs the checks that take minutes of real time
	$(CARGO) test --locked -- --ignored --test-threads=1 --show-output

bench: tools ## Measures scrapes, refreshes and collections beside others, ten minutes; writes BENCHMARKS.md
	benches/install-tools.sh
	$(CARGO) build --release --locked
	$(CARGO) build --release --locked --manifest-path benches/peers/rust/Cargo.toml --target-dir target/peers
	.tools/venv/bin/python benches/bench.py --write

format: ## Checks formatting
	$(CARGO) fmt --check

lint: ## Clippy, warnings denied
	$(CARGO) clippy --locked --all-targets -- --deny warnings

docs: ## Builds the documentation, warnings denied
	RUSTDOCFLAGS='--deny warnings' $(CARGO) doc --locked --no-deps --document-private-items

tools: ## Installs what the checks need beyond Rust, where it is missing
	tests/install-tools.sh

golden: ## Writes the golden files anew; look at the difference before you commit it
	UPDATE_GOLDEN=1 $(CARGO) test --locked --test it exposition

chart: tools ## Writes what is derived from the chart, the alerts and the dashboards
	.tools/venv/bin/python tests/chart.py write

clean: ## Removes what was built
	$(CARGO) clean
	rm -rf .tools
