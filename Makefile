# Development tasks of DSAPP Gateway. `make help` lists them.

GO            ?= go
BIN           ?= bin
TOOLS         ?= $(BIN)/tools
GOLANGCI_LINT := v2.15.0
GREMLINS      := v0.6.0
CADDY_VERSION  = $(shell $(GO) list -m -f '{{.Version}}' github.com/caddyserver/caddy/v2)
XCADDY        := v0.4.5
CYCLONEDX     := github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod@v1.10.0
# The flags and build tags of an xcaddy build.
BUILD_FLAGS   := -trimpath -ldflags "-w -s" -tags nobadger,nomysql,nopgx
EXAMPLE_DIR   ?= /etc/dsapp
FUZZ_TIME     ?= 5s
# The packages whose tests should notice every change.
MUTANTS       ?= dsapp/activation dsapp/ownership dsapp/gateway dsapp/authserver dsapp/seal dsapp/apikey dsapp/breaker dsapp/ratelimit
SRP_CLIENT    := cmd/caddy/testdata/srp-client
BROWSER       := cmd/caddy/testdata/browser
API_CLIENT    := cmd/caddy/testdata/generated-client
OUTSIDE       := examples/profile
MODULE        := github.com/dsapp-gateway/dsapp-gateway

##@ Every day

.PHONY: help
help: ## List the targets.
	@awk -F ':.*## ' '/^##@ / { print (n++ ? "\n" : "") substr($$0, 5) } /^[a-z-]+:.*## / { printf "  %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: format
format: $(TOOLS)/golangci-lint ## Format the code.
	$(TOOLS)/golangci-lint fmt ./...

.PHONY: lint
lint: $(TOOLS)/golangci-lint ## Run go vet, the formatters and the linters.
	$(GO) vet ./... ./dsapp/srp/_bench
	$(TOOLS)/golangci-lint run ./...

$(TOOLS)/golangci-lint:
	GOBIN=$(abspath $(TOOLS)) $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_LINT)

# Go gives a package 10 minutes, which a machine with other work to do needs in part.
.PHONY: test
test: test-tools ## Install what the tests need and run them all.
	@GO=$(GO) .ci/gotest -timeout 30m ./...

# To make each interesting input smaller would take a minute by default, which nothing
# is left of FUZZ_TIME after. Go 1.26 calls the end of that time a failure now and
# then (golang.org/issue/75804): then there is no failing input, and the target runs
# again, at most four times.
.PHONY: fuzz
fuzz: ## Fuzz every parser and the arithmetic, for FUZZ_TIME each.
	@set -e; out=$$(mktemp); trap 'rm -f "$$out"' EXIT; for dir in $$(grep -rl --include='*_test.go' '^func Fuzz' . | xargs -n1 dirname | sort -u); do \
		for target in $$(grep -h -o '^func Fuzz[A-Za-z0-9_]*' $$dir/*_test.go | cut -c6-); do \
			echo "fuzzing $$dir $$target"; \
			for left in 4 3 2 1 0; do \
				if $(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZ_TIME) -fuzzminimizetime 10x $$dir >$$out 2>&1; then cat $$out; break; fi; \
				cat $$out; \
				[ $$left != 0 ] && grep -q 'context deadline exceeded' $$out && ! grep -q 'Failing input written' $$out || exit 1; \
			done; \
		done; \
	done

.PHONY: bench
bench: ## Run the benchmarks of the library.
	$(GO) test -run '^$$' -bench . -benchmem ./dsapp/...

##@ Further checks

.PHONY: race
race: test-tools ## Run all tests under the race detector.
	@GO=$(GO) .ci/gotest -race -timeout 30m ./...

.PHONY: docs-test
docs-test: test-tools ## Run the tests of the documents: what they run and cite, and what is generated.
	@GO=$(GO) .ci/gotest -count=1 . ./internal/configref ./internal/scaling
	@GO=$(GO) .ci/gotest -count=1 ./caddymodule -run 'Documented|Documents|ExampleOfEvents'
	@GO=$(GO) .ci/gotest -count=1 ./cmd/caddy -run '^Test(Documented|Readers|Example|Migration|Sandbox|CommandsOfServices|MetricsOnASite|RollingRestart|Deployed|Unit|UserAndFiles)'

.PHONY: browser
browser: $(BROWSER)/node_modules/.package-lock.json ## Install Chromium (apt) and what drives it (npm) if they are missing, and run the tests in it.
	@command -v chromium >/dev/null || { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends chromium; }
	@DSAPP_BROWSER=1 GO=$(GO) .ci/gotest ./cmd/caddy -run '^TestBrowser' -count=1 -timeout 30m

$(BROWSER)/node_modules/.package-lock.json: $(BROWSER)/package-lock.json
	cd $(BROWSER) && npm ci --no-audit --no-fund

.PHONY: deploy-check
deploy-check: ## Check the Kubernetes manifests and the compose file against the types of their programs.
	$(GO) -C deploy/_check vet . && $(GO) -C deploy/_check run .

.PHONY: purego
purego: test-tools ## Run the tests of the library without assembly, and vet it for a processor that there is none for.
	@GO=$(GO) .ci/gotest -tags purego ./dsapp/...
	GOARCH=arm64 $(GO) vet ./dsapp/srp

# The packages that encrypt, derive, hash or speak TLS. TestFIPSOnly tries the stricter mode.
.PHONY: fips
fips: test-tools ## Run the tests that use cryptography in the FIPS 140-3 mode of Go.
	@GODEBUG=fips140=on GO=$(GO) .ci/gotest ./dsapp/seal ./dsapp/activation ./dsapp/ownership ./dsapp/apikey ./dsapp/authserver/... ./dsapp/store ./caddymodule

# TestJavaClient and TestJavaLibrariesActivate run here only, since they need a JDK.
.PHONY: clients
clients: test-tools ## Install what the clients in other languages need (npm; a JDK and Bouncy Castle with apt), and build and test them.
	@command -v javac >/dev/null && [ -e /usr/share/java/bcprov.jar ] || \
		{ apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends openjdk-17-jdk-headless libbcprov-java; }
	cd clients/typescript && npm ci --no-audit --no-fund && npm test
	@set -e; dir=$$(mktemp -d); trap 'rm -rf "$$dir"' EXIT; cd clients/typescript; npx tsc --outDir $$dir; \
	diff -r $$dir dist || { echo "run: npm run build in clients/typescript" >&2; exit 1; }
	$(MAKE) -C clients/java test
	DSAPP_CLIENTS=1 $(GO) test ./cmd/caddy -run '^Test((TypeScript|Java)Client|JavaLibrariesActivate$$)' -count=1

.PHONY: cover
cover: test-tools ## Report the statement coverage of the library.
	@mkdir -p $(BIN)
	$(GO) test -coverpkg=./dsapp/... -coverprofile=$(BIN)/cover.out ./dsapp/... >/dev/null
	@$(GO) tool cover -func=$(BIN)/cover.out | tail -n 1

.PHONY: asm-check
asm-check: ## Check the generators of the assembly, and that it is what they write.
	@set -e; dir=$$(mktemp -d); trap 'rm -rf "$$dir"' EXIT; cp -r dsapp/srp $$dir/; \
	(cd $$dir/srp && rm *.s *_stubs_*.go && sed -n 's|^//go:generate go -C _asm|$(GO) -C _asm|p' *.go | sh -e); \
	for file in dsapp/srp/*.s dsapp/srp/*_stubs_*.go; do \
		cmp $$dir/srp/$${file##*/} $$file || { echo "run: $(GO) generate ./dsapp/srp" >&2; exit 1; }; \
	done; \
	cd $$dir/srp/_asm; $(GO) vet ./...; $(GO) mod tidy -diff; \
	changed=$$($(GO) fmt ./...); [ -z "$$changed" ] || { echo "gofmt changes in dsapp/srp/_asm:" $$changed >&2; exit 1; }

# The settings keep the linter from reporting its use and from asking for newer versions.
.PHONY: openapi
openapi: $(API_CLIENT)/node_modules/.package-lock.json ## Lint docs/openapi.json, and activate a device with a client generated from it (npm; a minute).
	cd $(API_CLIENT) && REDOCLY_TELEMETRY=off REDOCLY_SUPPRESS_UPDATE_NOTICE=true npm run --silent lint
	@DSAPP_GENERATOR=1 GO=$(GO) .ci/gotest ./cmd/caddy -run '^TestGeneratedClient$$' -count=1

$(API_CLIENT)/node_modules/.package-lock.json: $(API_CLIENT)/package-lock.json
	cd $(API_CLIENT) && npm ci --ignore-scripts --no-audit --no-fund

.PHONY: ct-trace
ct-trace: ## Step through the arithmetic and compare the paths it takes for different secrets, at all sizes (linux/amd64, some minutes).
	$(GO) test ./dsapp/srp -run '^TestTrace' -count=1 -v -trace-all -timeout 60m

.PHONY: soak
soak: test-tools ## Run the soak suites at full length, one after the other, and print their table.
	@mkdir -p $(BIN) && rm -f $(BIN)/soak.txt
	@GO=$(GO) .ci/gotest ./cmd/caddy -run '^TestSoak' -count=1 -parallel 1 -timeout 60m -soak $(abspath $(BIN))/soak.txt; status=$$?; \
		[ ! -f $(BIN)/soak.txt ] || cat $(BIN)/soak.txt; exit $$status

.PHONY: rolling-upgrade
rolling-upgrade: test-tools ## Upgrade two nodes from an earlier version to this one under load (FROM=v1.0.0, a tag or commit).
	@[ -n "$(FROM)" ] || { echo "usage: make rolling-upgrade FROM=v1.0.0" >&2; exit 2; }
	@set -e; dir=$$(mktemp -d); trap 'rm -rf "$$dir"' EXIT; git archive --prefix=from/ $(FROM) | tar -x -C $$dir; \
	(cd $$dir/from && $(GO) build -o $$dir/caddy ./cmd/caddy); \
	DSAPP_PREVIOUS=$$dir/caddy $(GO) test ./cmd/caddy -run '^TestRollingRestart$$' -count=1 -v

# It takes ten minutes. The file has what each panel of the dashboard shows.
.PHONY: dashboard-demo
dashboard-demo: test-tools ## Show nodes under load, with failures, to a real Prometheus, and write what the dashboard shows to bin/dashboard.json.
	@mkdir -p $(BIN)
	$(GO) test ./cmd/caddy -run '^TestDashboardDemo$$' -count=1 -v -timeout 30m -dashboard-demo $(abspath $(BIN))/dashboard.json

# A change that no test notices is printed as LIVED. Mutants that only make a test run
# into its timeout count as noticed.
.PHONY: mutants
mutants: $(TOOLS)/gremlins ## Change the core packages one operator at a time, and list the changes that no test notices (an hour; MUTANTS=dsapp/ownership: one package).
	@set -e; for package in $(MUTANTS); do echo "== $$package"; $(TOOLS)/gremlins unleash ./$$package --output-statuses l --timeout-coefficient 5; done

$(TOOLS)/gremlins:
	GOBIN=$(abspath $(TOOLS)) $(GO) install github.com/go-gremlins/gremlins/cmd/gremlins@$(GREMLINS)

# ROUNDS=3 takes half a minute; without it 15 rounds, as far as they fit into three minutes.
.PHONY: bench-srp
bench-srp: ## Compare the server's side of SRP with OpenSSL and GMP (ROUNDS=3: briefly; README=1: into README.md).
	@printf '#include <stdio.h>\n#include <openssl/bn.h>\n#include <gmp.h>\n' | $(CC) -fsyntax-only -x c - 2>/dev/null || \
		{ apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy gcc libc6-dev libssl-dev libgmp-dev; }
	@CC="$(CC)" $(GO) run ./dsapp/srp/_bench $(if $(ROUNDS),-rounds $(ROUNDS)) $(if $(README),-readme README.md)

# It takes ten minutes. A proxy that cannot be installed is left out of the tables.
.PHONY: bench-gateway
bench-gateway: test-tools ## Compare the cost of a request with that at plain Caddy, nginx and HAProxy, and write it into README.md.
	@command -v nginx >/dev/null || { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends nginx-light; } || true
	$(GO) test ./cmd/caddy -run '^TestBenchGateway$$' -count=1 -v -timeout 30m -bench-gateway $(abspath README.md)

##@ Build

.PHONY: build
build: ## Build a stripped Caddy with the gateway and the sandbox into bin/caddy.
	CGO_ENABLED=0 $(GO) build $(BUILD_FLAGS) -o $(BIN)/caddy ./cmd/caddy

# The version in docs/getting-started.md and xcaddy.Dockerfile is that of CHANGELOG.md (TestVersions).
VERSION := $(shell sed -n 's/^\#\# \[\([0-9.]*\)\].*/v\1/p' CHANGELOG.md | head -n 1)

.PHONY: xcaddy
xcaddy: $(TOOLS)/xcaddy ## Build bin/caddy-xcaddy from this folder with xcaddy, and run the examples on it; test the example of a profile and activate with it.
	$(TOOLS)/xcaddy build $(CADDY_VERSION) --with $(MODULE)@$(VERSION)=$(CURDIR) --output $(abspath $(BIN))/caddy-xcaddy
	$(BIN)/caddy-xcaddy list-modules --versions | grep 'dsapp.* $(VERSION)'
	DSAPP_CADDY=$(abspath $(BIN))/caddy-xcaddy $(GO) test ./cmd/caddy -run '^TestExample(Configuration|sAnswerAlike)$$' -count=1
	cd $(OUTSIDE) && $(GO) vet ./... && $(GO) mod tidy -diff && $(GO) test ./... -count=1
	$(TOOLS)/xcaddy build $(CADDY_VERSION) --with $(MODULE)@$(VERSION)=$(CURDIR) --with example.com/dsapp-profile@v0.0.0=$(CURDIR)/$(OUTSIDE) --output $(abspath $(BIN))/caddy-outside
	DSAPP_OUTSIDE=1 DSAPP_CADDY=$(abspath $(BIN))/caddy-outside $(GO) test ./cmd/caddy -run '^TestModuleFromOutside$$' -count=1

$(TOOLS)/xcaddy:
	GOBIN=$(abspath $(TOOLS)) $(GO) install github.com/caddyserver/xcaddy/cmd/xcaddy@$(XCADDY)

# Lets Go fetch this module from the repository of this folder instead of the network, as if it
# was published. It gives the commit its version: vX.Y.Z if it has this tag.
FROM_HERE := GOPRIVATE=$(MODULE) GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=url.file://$(CURDIR).insteadOf GIT_CONFIG_VALUE_0=https://$(MODULE)
RELEASE   := $(BIN)/release

# No file has the folder, the time or the machine in it, so that another build of the commit by
# the same version of Go gives the same bytes.
.PHONY: release
release: $(TOOLS)/xcaddy ## Build what is released of the commit that is checked out into bin/release: binaries, checksums, SBOM, licences, sources.
	@rm -rf $(RELEASE) && mkdir -p $(RELEASE)
	@set -e; commit=$$(git rev-parse HEAD); version=$$($(FROM_HERE) $(GO) list -m -f '{{.Version}}' $(MODULE)@$$commit); \
	case $$version in *-*) ;; $(VERSION)) ;; *) echo "the tag is $$version, but CHANGELOG.md ends with $(VERSION)" >&2; exit 1;; esac; \
	echo "building $$version with $$($(GO) env GOVERSION)"; \
	for arch in amd64 arm64; do \
		binary=$(abspath $(RELEASE))/caddy-dsapp_$${version}_linux_$$arch; \
		$(FROM_HERE) GOOS=linux GOARCH=$$arch CGO_ENABLED=0 $(TOOLS)/xcaddy build $(CADDY_VERSION) \
			--with $(MODULE)@$$commit --output $$binary 2>$(BIN)/release.log || { cat $(BIN)/release.log >&2; exit 1; }; \
		$(GO) run $(CYCLONEDX) bin -json -std -noserial -notimestamp -version $$version -output $$binary.cdx.json $$binary 2>$(BIN)/release.log || { cat $(BIN)/release.log >&2; exit 1; }; \
	done; \
	$(FROM_HERE) $(GO) run ./cmd/licences $(RELEASE)/caddy-dsapp_*_linux_???64 > $(RELEASE)/LICENCES.txt; \
	git archive --prefix=dsapp-gateway_$$version/ $$commit | gzip -n > $(RELEASE)/dsapp-gateway_$$version.tar.gz; \
	cp CHANGELOG.md $(RELEASE)/; cd $(RELEASE); sha256sum * > SHA256SUMS; cat SHA256SUMS

# xcaddy and Go build everything again, without the cache of the first build. It takes some minutes.
.PHONY: release-check
release-check: release ## Build the release again in another folder with an empty cache, and compare the bytes.
	@set -e; dir=$$(mktemp -d); trap 'rm -rf "$$dir"' EXIT; git clone -q "file://$(CURDIR)" $$dir/elsewhere; \
	git -C $$dir/elsewhere checkout -q $$(git rev-parse HEAD); \
	GOCACHE=$$dir/cache $(MAKE) -C $$dir/elsewhere BIN=$$dir/bin release >/dev/null; \
	diff -r $(RELEASE) $$dir/bin/release; echo "the same bytes in another folder"

# What deploy/container/Containerfile copies: the released binary, or with BINARY=bin/caddy one with
# the sandbox, as IMAGE=dsapp-sandbox.
BINARY  ?= $(BIN)/caddy-xcaddy
IMAGE   ?= dsapp-gateway
BUILDER ?= $(shell command -v buildah >/dev/null && echo buildah build --format docker || echo docker build)
CONTEXT := $(BIN)/container

.PHONY: container
container: ## Build the image dsapp-gateway from bin/caddy-xcaddy with buildah or docker (BINARY=…, IMAGE=…).
	@rm -rf $(CONTEXT) && mkdir -p $(CONTEXT)/own/data $(CONTEXT)/own/config $(CONTEXT)/own/run/caddy $(CONTEXT)/own/sandbox
	@install -D -m 0755 $(BINARY) $(CONTEXT)/rootfs/usr/bin/caddy
	@install -D -m 0644 /etc/ssl/certs/ca-certificates.crt $(CONTEXT)/rootfs/etc/ssl/certs/ca-certificates.crt
	$(BUILDER) -t $(IMAGE) -f deploy/container/Containerfile $(CONTEXT)

.PHONY: container-check
container-check: container ## Run the image as its user and read only until it is healthy, and stop it (root, buildah).
	deploy/container/check.sh $(IMAGE)

.PHONY: compose-files
compose-files: ## Make the keys, certificates and passwords for deploy/compose.
	@$(MAKE) -s example-files EXAMPLE_DIR=deploy/compose/secrets
	@deploy/redis/passwords.sh deploy/compose/secrets/redis
	@cp deploy/compose/secrets/redis/dsapp.password deploy/compose/secrets/redis.password
	@chmod -R a+rX deploy/compose/secrets

.PHONY: example-files
example-files: ## Make the files that the example configurations name, in EXAMPLE_DIR (needs openssl).
	@command -v openssl >/dev/null || { echo "openssl is needed" >&2; exit 1; }
	@mkdir -p $(EXAMPLE_DIR) && cd $(EXAMPLE_DIR) && umask 077 && set -e; \
	for name in front-end.key back-end.key sealing.key; do \
		[ -s $$name ] || openssl rand -hex 32 > $$name; \
	done; \
	certificate() { \
		openssl x509 -checkend 0 -noout -in $$1.pem >/dev/null 2>&1 || openssl req -x509 -newkey ec \
			-pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 365 -subj /CN=$$2 \
			-addext subjectAltName=DNS:$$2,DNS:localhost,IP:127.0.0.1 -keyout $$1.key -out $$1.pem 2>openssl.log \
			|| { cat openssl.log; exit 1; }; \
	}; \
	certificate tls gateway.example.com; \
	certificate oas-ca oas.example.com; \
	rm -f openssl.log; \
	[ -z "$$SUDO_UID" ] || chown -R "$$SUDO_UID:$$SUDO_GID" .; \
	echo "made in $(EXAMPLE_DIR):"; ls

##@ Tools

.PHONY: test-tools
test-tools: $(SRP_CLIENT)/node_modules/.package-lock.json ## Install what the tests run: redis-server, haproxy, curl, openssl, python3, promtool, systemd-analyze (apt), SRP clients (npm).
	@for tool in redis-server haproxy curl openssl python3; do \
		command -v $$tool >/dev/null || missing="$$missing $$tool"; \
	done; \
	command -v promtool >/dev/null || missing="$$missing prometheus"; \
	command -v systemd-analyze >/dev/null || missing="$$missing systemd"; \
	[ -z "$$missing" ] || { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends $$missing; }

$(SRP_CLIENT)/node_modules/.package-lock.json: $(SRP_CLIENT)/package-lock.json
	cd $(SRP_CLIENT) && npm ci --no-audit --no-fund

.PHONY: clean
clean: ## Remove what the build made.
	rm -rf $(BIN) $(SRP_CLIENT)/node_modules $(API_CLIENT)/node_modules $(BROWSER)/node_modules clients/typescript/node_modules clients/java/build
