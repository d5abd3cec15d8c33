# `make` alone lists what there is. One build profile serves demo, check and test; bench uses release.
export PATH := $(PATH):$(HOME)/.cargo/bin
services := tests/services

.PHONY: help demo build check test openapi bench

help:  ## this list
	@sed -n 's/^\([a-z]*\):.*## /make \1	/p' Makefile

demo:  ## the whole system on this machine: broker, Redis, worker, receiver, sample events
	@$(services)/install-missing demo
	cargo build --locked
	@cargo run --quiet --locked -- dev

build:  ## target/debug/optio-webhooks
	@$(services)/install-missing build
	cargo build --locked

check:  ## formatting, lints, documentation
	@$(services)/install-missing build
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --document-private-items

test:  ## every test, against a real Kafka and a real Redis
	@$(services)/install-missing test
	cargo test --locked --no-run
	$(services)/with-services cargo test --locked

openapi:  ## docs/openapi.json, from the code
	UPDATE_OPENAPI=1 cargo test --locked --lib api

bench:  ## cost per delivery against the bare client
	@$(services)/install-missing test
	cargo bench --locked --no-run
	$(services)/with-services cargo bench --locked
