# `make` without a target lists all targets. demo, check and test share one build profile, so that nothing is compiled
# twice. bench uses the release profile.
export PATH := $(PATH):$(HOME)/.cargo/bin
services := tests/services

.PHONY: help demo build check pin test chaos openapi schema pictures bench fuzz

help:  ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /make \1	/p' Makefile

demo:  ## run the whole system on this machine: broker, Redis, worker, receiver, sample events
	@$(services)/install-missing demo
	@echo 'Building optio-webhooks. The first build takes 5 to 15 minutes on 2 processors; later ones take seconds.'
	cargo build --locked
	@cargo run --quiet --locked -- dev

build:  ## build target/debug/optio-webhooks
	@$(services)/install-missing build
	cargo build --locked

check:  ## check formatting, lints, documentation, and the crates that are used
	@$(services)/install-missing check
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --document-private-items
	@$(services)/pin-images --check
	@$(services)/supply-chain

pin:  ## pin the images to what their tags name now: needs a Docker engine with buildx
	@$(services)/pin-images

test:  ## run all tests against a real Kafka and a real Redis
	@$(services)/install-missing test
	cargo test --locked --no-run
	$(services)/with-services cargo test --locked

chaos:  ## 100,000 simulated seeds, and random faults for a quarter of an hour: see docs/reliability.md
	@$(services)/install-missing test
	SIMULATED_SEEDS=$${SIMULATED_SEEDS:-100000} cargo test --locked --lib -- --nocapture no_seed_loses_a_delivery
	CHAOS_SECONDS=$${CHAOS_SECONDS:-900} CHAOS_FAULTS=$${CHAOS_FAULTS:-20} CHAOS_DRAINS=$${CHAOS_DRAINS:-40} $(services)/with-services cargo test --locked --test it -- --nocapture --test-threads 1 chaos::

openapi:  ## generate docs/openapi.json from the code
	UPDATE_OPENAPI=1 cargo test --locked --lib api

schema:  ## generate config/task-event.schema.json from the code
	UPDATE_SCHEMA=1 cargo test --locked --lib event::schema

pictures:  ## take the pictures of the pages in docs/pictures again, with the test that opens every page
	@$(services)/install-missing test
	mkdir -p target/pictures
	SCREENSHOTS=$(CURDIR)/target/pictures $(services)/with-services cargo test --locked --test it -- every_page_fits
	cp $(foreach page,delivery new settings event,$(foreach scheme,light dark,target/pictures/$(page)-$(scheme).png)) docs/pictures/

bench:  ## run the benchmarks, such as the cost per delivery compared with a bare client
	@$(services)/install-missing test
	cargo bench --locked --no-run
	KAFKA_HEAP=$${KAFKA_HEAP:-2g} $(services)/with-services cargo bench --locked

fuzz:  ## run each fuzz target for FUZZ_SECONDS (default 600): needs cargo-fuzz and a nightly toolchain
	@fuzz/run
