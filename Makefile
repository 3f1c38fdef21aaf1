# Two commands: `make run` and `make test`. The work is in cargo and npm.
.PHONY: run test dev bench web

# Where cargo builds.
TARGET = $(or $(CARGO_TARGET_DIR),target)

# Builds the client and the server, starts everything with embedded defaults, and prints the addresses to open.
run: web
	@echo "== building the server (the first time takes some minutes)"
	cargo build --package medtech
	MEDTECH_DEMO=true $(TARGET)/debug/medtech serve

# Installs what only tests need when it is missing, runs every test, stops what it started. The browser's tests drive the
# program as it is delivered, so it is put aside before the others build it again with what only they need. One build has
# the bugs that the last of them switches on by itself, one after the other.
TESTS = cargo test --workspace --features medtech/seeded-bugs
test: web tests/e2e/node_modules/.stamp
	tests/scripts/install.sh
	cargo build --package medtech
	cp $(TARGET)/debug/medtech $(TARGET)/debug/medtech-delivered
	cd web-client && npm run lint && npm run types && npm test
	tests/scripts/clamd.sh tests/scripts/postgres.sh $(TESTS) -- --skip every_seeded_bug
	$(TESTS) --bin medtech every_seeded_bug
	E2E_SERVER=$(abspath $(TARGET))/debug/medtech-delivered tests/scripts/postgres.sh npm --prefix tests/e2e test

# The server on its own, and the client rebuilt at every change.
dev:
	cargo build --package medtech
	MEDTECH_DEMO=true $(TARGET)/debug/medtech serve & cd web-client && npm run dev

# Both in one build, so that what they share is compiled once. Peers are taken from PEERS_DIR or the path.
bench: web tests/e2e/node_modules/.stamp
	cargo build --release --package medtech --package medtech-tests
	$(TARGET)/release/bench
	cd tests/e2e && E2E_SERVER=$(abspath $(TARGET))/release/medtech node bench/admit.mjs
	tests/scripts/first-run.sh

# The client is built again only when a source of it changed.
web: web-client/dist/index.html

web-client/node_modules/.stamp: web-client/package-lock.json
	@echo "== installing the client's packages"
	cd web-client && npm ci --ignore-scripts --no-audit --no-fund
	@touch $@

tests/e2e/node_modules/.stamp: tests/e2e/package-lock.json
	cd tests/e2e && npm ci --ignore-scripts --no-audit --no-fund
	@touch $@

web-client/dist/index.html: web-client/node_modules/.stamp $(shell find web-client/src web-client/public web-client/index.html web-client/vite.config.ts -type f 2>/dev/null)
	@echo "== building the client"
	cd web-client && npm run build
	@touch $@
