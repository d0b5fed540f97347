# onelb. `make help` lists the targets; ARGS goes to the program behind a target.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
.NOTPARALLEL:

# One set of build flags everywhere, the lab's own builds included, so that what is
# compiled once serves all. A clone that belongs to somebody else must build too:
# git is asked for a version here, where a failure does not matter, and not by the
# go command. grpcnotrace: gRPC's trace pages need html/template, which calls methods
# by name, and so the linker would keep every exported method of all of Kubernetes'
# clients, in the file and in part in memory.
export GOFLAGS := -trimpath -buildvcs=false -tags=grpcnotrace
export CGO_ENABLED := 0
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
# Helm wants a semantic version, and the Kubernetes libraries end a program whose own
# is none: a tag such as v0.1.0, or else one before all others.
SEMVER := $(or $(shell echo '$(VERSION)' | sed -nE 's/^v?([0-9]+\.[0-9]+\.[0-9]+.*)$$/\1/p'),0.0.0-g$(VERSION))
LDFLAGS := -s -w -X k8s.io/component-base/version.gitVersion=v$(SEMVER) -X main.version=$(VERSION)

ARGS ?=
FUZZTIME ?= 20s
PROGRAMS := opennebula-cloud-controller-manager onelb-node onelb-router onelbctl
IMAGES := opennebula-cloud-controller-manager onelb-node
ARCHES := amd64 arm64
RELEASE := build/release
# What is built of one commit is the same wherever and whenever it is built.
EPOCH := $(shell git log -1 --format=%ct 2>/dev/null || echo 0)
archive := tar --create --gzip --sort=name --owner=0 --group=0 --numeric-owner --mtime=@$(EPOCH)
TOOL := go tool -modfile=test/tools/go.mod
LOG := build/test.log

# What `make test` runs, in this order: what fails fast comes first.
STAGES := deps vet race contract kube e2e

# Packages with a place of their own in `make test`.
STAGED := /test/(contract|crash|e2e|lab|vm/ipvs)(/|$$)
UNIT = $$(go list ./... | grep -vE '$(STAGED)')

##@ Every day

.PHONY: help
help: ## Say what there is
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z0-9-]+:.*## / {printf "  %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@printf '\nARGS="..." is passed on, for example: make demo ARGS=--once, make bench ARGS="-run failover", make e2e ARGS="-run TestDemo".\n'

.PHONY: demo
demo: build/demo ## Whole private datacenter on this machine, a Service in it, answers from outside (root); ARGS=--once ends by itself
	@$(need-root)
	@exec build/demo $(ARGS)

.PHONY: check
check: ## Quick and without root: format, vet, unit tests, project rules
	@$(gofmt-clean)
	go vet ./...
	ONELB_CHECK=1 go test -timeout 5m $(ARGS) $(UNIT)

.PHONY: test
test: ## All that CI runs (root): check, unit tests with the race detector, contract, lab and end to end
	@$(need-root)
	@mkdir -p build; : > $(LOG)
	@$(MAKE) $(STAGES) || { $(summary); echo "make test: FAILED"; exit 1; }
	@$(summary); echo "make test: passed"

.PHONY: fmt
fmt: ## Format all Go code (gofumpt, gci)
	$(TOOL) golangci-lint fmt ./...

.PHONY: lint
lint: ## golangci-lint with .golangci.yml
	$(TOOL) golangci-lint run $(ARGS) ./...

.PHONY: generate
generate: ## Regenerate CRDs, deepcopy and gRPC code, and the tables in docs/reference
	$(TOOL) controller-gen object paths=./api/... crd output:crd:dir=manifests/base/crds
	cp manifests/base/crds/*.yaml manifests/chart/crds/
	@$(call proto,.)
	go run ./test/docgen

.PHONY: verify
verify: ## Generated files and go.mod files are up to date (changes nothing)
	@tmp=$$(mktemp -d); trap 'rm -rf "$$tmp"' EXIT; \
	$(TOOL) controller-gen object paths=./api/... output:object:dir="$$tmp/api" crd output:crd:dir="$$tmp/crds"; \
	diff -u manifests/base/crds "$$tmp/crds"; \
	diff -u manifests/base/crds manifests/chart/crds; \
	diff -u api/v1alpha1/zz_generated.deepcopy.go "$$tmp/api/zz_generated.deepcopy.go"; \
	$(call proto,$$tmp); \
	find "$$tmp" -name '*.pb.go' -printf '%P\n' | while read -r f; do diff -u "$$f" "$$tmp/$$f"; done
	@go run ./test/docgen -check
	@for m in . test/helm test/site test/tools test/kube; do (cd $$m && go mod tidy -diff); done
	@echo "generated files and go.mod files are up to date"

##@ Parts of make test

.PHONY: vet
vet: ## gofmt and go vet
	@$(gofmt-clean)
	go vet ./...

.PHONY: race
race: deps ## Unit tests with the race detector
	@mkdir -p build
	@echo "unit tests with the race detector"
	@CGO_ENABLED=1 go test -race -count=1 -timeout 10m $(ARGS) $(UNIT) 2>&1 | tee -a $(LOG)

.PHONY: contract
contract: ## What we rely on of the cloud-provider library and of OpenNebula (the simulator or, with ONE_XMLRPC and ONE_AUTH, a real front-end)
	@mkdir -p build
	@go test -count=1 -timeout 10m $(ARGS) ./loadbalancer ./ipam ./test/contract/... 2>&1 | tee -a $(LOG)

.PHONY: kube
kube: ## Build etcd and Kubernetes for the lab (first time about 12 minutes on two cores)
	@go run ./test/lab/cmd/kubebin

.PHONY: e2e
e2e: kube ## The lab and what runs in it, in network namespaces (root)
	@$(need-root)
	@mkdir -p build
	@go test -count=1 -v -p 1 -timeout 30m $(ARGS) ./test/lab/... ./test/e2e/... ./test/crash/... 2>&1 | tee -a $(LOG)

.PHONY: crash
crash: kube ## Kill the CCM at every call, 1,000 times; ARGS="-crash.seed=N" repeats a plan
	@go test -count=1 -v -timeout 60m ./test/crash -crash.points=1000 -crash.worlds=3 $(ARGS)

.PHONY: vm
vm: kube ## kube-proxy in IPVS mode, in an emulated machine with Debian's kernel (root; 4 GiB; not part of make test)
	@$(need-root)
	@$(call ensure,qemu-system-x86_64:qemu-system-x86 /etc/ssl/certs/ca-certificates.crt:ca-certificates)
	@go test -count=1 -v -timeout 90m ./test/vm/ipvs -vm $(ARGS)

.PHONY: page
page: ## The web page in Debian's Chromium, without a window; takes the pictures in docs/pictures (root; 125 MB; not part of make test)
	@$(need-root)
	@go test -count=1 -v -timeout 30m ./test/browser -browser -pictures $(CURDIR)/docs/pictures $(ARGS)

.PHONY: fuzz
fuzz: ## Each fuzz test for FUZZTIME (20s)
	@grep -rlE '^func Fuzz' --include='*_test.go' . | sort | while read -r file; do \
	  for name in $$(sed -nE 's/^func (Fuzz[A-Za-z0-9_]*)\(.*/\1/p' "$$file"); do \
	    echo "$$name in $$(dirname "$$file")"; \
	    go test -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME) "$$(dirname "$$file")"; \
	  done; \
	done

.PHONY: bench
bench: build/bench ## Measure in the lab, write bench.json (root); ARGS="-run failover" for a part
	@$(need-root)
	@exec build/bench $(ARGS)

##@ Delivery

.PHONY: build
build: ## Static binaries in bin/
	@mkdir -p bin
	go build -ldflags '$(LDFLAGS)' -o bin/ $(PROGRAMS:%=./cmd/%)
	@for n in kubectl-onelb kubectl_complete-onelb; do ln -sf onelbctl bin/$$n; done

# Static binaries for each architecture in build/linux-ARCH/.
.PHONY: binaries
binaries:
	@for a in $(ARCHES); do \
	  echo "binaries for linux/$$a"; mkdir -p build/linux-$$a; \
	  GOOS=linux GOARCH=$$a go build -ldflags '$(LDFLAGS)' -o build/linux-$$a/ $(PROGRAMS:%=./cmd/%); \
	done

.PHONY: images
images: binaries ## Images from scratch for all architectures with buildah, also as archives in build/images (root)
	@$(need-root)
	@$(call ensure,buildah:buildah /etc/ssl/certs/ca-certificates.crt:ca-certificates)
	@for p in $(IMAGES); do \
	  name=localhost/onelb/$$p:$(VERSION); archive=build/images/$$p.tar; \
	  ! buildah $(BUILDAH_FLAGS) manifest exists $$name 2>/dev/null || buildah $(BUILDAH_FLAGS) manifest rm $$name >/dev/null; \
	  buildah $(BUILDAH_FLAGS) manifest create $$name >/dev/null; \
	  for a in $(ARCHES); do \
	    dir=build/images/$$p-$$a; mkdir -p $$dir; \
	    cp build/linux-$$a/$$p manifests/images/Containerfile.$$p $$dir/; \
	    cp /etc/ssl/certs/ca-certificates.crt $$dir/; \
	    buildah $(BUILDAH_FLAGS) build --isolation chroot --platform linux/$$a --timestamp $(EPOCH) --manifest $$name -f $$dir/Containerfile.$$p $$dir; \
	  done; \
	  rm -f $$archive; \
	  buildah $(BUILDAH_FLAGS) manifest push --all $$name oci-archive:$$archive:onelb/$$p:$(VERSION); \
	  for a in $(ARCHES); do $(call sbom,$$a,$$p) > build/images/$$p-$$a.cdx.json; done; \
	done

.PHONY: images-test
images-test: images ## Build the images twice: the same digests; their programs run in their roots (root)
	@rm -rf build/again; mkdir -p build/again; mv build/images/*.tar build/again/
	@rm -rf build/linux-*; $(MAKE) images
	@go test -count=1 -v -run TestArchives ./test/images -archives $(CURDIR)/build/images -again $(CURDIR)/build/again -arches '$(ARCHES)'

.PHONY: release
release: binaries ## Archives of the binaries, the chart and the manifests in build/release, with checksums
	@rm -rf $(RELEASE); mkdir -p $(RELEASE)/chart
	@for a in $(ARCHES); do \
	  for n in kubectl-onelb kubectl_complete-onelb; do ln -sf onelbctl build/linux-$$a/$$n; done; \
	  $(archive) -f $(RELEASE)/onelb-$(VERSION)-linux-$$a.tar.gz -C build/linux-$$a $(PROGRAMS) kubectl-onelb kubectl_complete-onelb; \
	  for p in $(PROGRAMS); do $(call sbom,$$a,$$p) > $(RELEASE)/$$p-$(VERSION)-linux-$$a.cdx.json; done; \
	done
	@cp -r manifests/chart $(RELEASE)/chart/onelb
	@sed -i 's/^version: .*/version: $(SEMVER)/; s/^appVersion: .*/appVersion: "$(VERSION)"/' $(RELEASE)/chart/onelb/Chart.yaml
	@$(archive) -f $(RELEASE)/onelb-chart-$(VERSION).tgz -C $(RELEASE)/chart onelb
	@$(archive) -f $(RELEASE)/onelb-manifests-$(VERSION).tar.gz manifests
	@rm -r $(RELEASE)/chart
	@cd $(RELEASE) && sha256sum * > SHA256SUMS && cat SHA256SUMS

.PHONY: site
site: ## Documentation as a static web site in build/site; fails if a link leads nowhere
	@mkdir -p build
	@go build -C test/site -o $(CURDIR)/build/sitegen .
	@build/sitegen -root . -out build/site

.PHONY: deps
deps: ## Install what is missing for make test: a C compiler (race detector), nft, ip
	@$(call ensure,gcc:gcc /usr/include/stdio.h:libc6-dev nft:nftables ip:iproute2 /etc/ssl/certs/ca-certificates.crt:ca-certificates)

.PHONY: clean
clean: ## Remove what the targets above made here
	rm -rf bin build bench.json

# sbom ARCH PROGRAM lists what a program was built of, in the form of CycloneDX.
sbom = go run ./test/sbom -version $(VERSION) build/linux-$(1)/$(2)

# The programs behind demo and bench are built and then executed in place of the
# shell, so that a signal reaches them and not a `go run` in between.
.PHONY: build/demo build/bench
build/demo:
	@mkdir -p build
	@go build -o $@ ./test/lab/cmd/demo
build/bench:
	@mkdir -p build
	@go build -o $@ ./test/bench/cmd/bench

define need-root
if [ "$$(id -u)" != 0 ]; then echo "make $@ makes network namespaces and so needs root; make check does not" >&2; exit 1; fi
endef

define gofmt-clean
files=$$(find . -name '*.go' -not -path './build/*' -print0 | xargs -0 gofmt -l); \
if [ -n "$$files" ]; then printf 'not formatted (make fmt):\n%s\n' "$$files" >&2; exit 1; fi
endef

# The verdict of each package again, and each test that failed.
define summary
printf '\n'; grep -E '^(ok|FAIL|panic:|[[:space:]]*--- FAIL)|DATA RACE' $(LOG) || true
endef

# ensure COMMAND-OR-FILE:PACKAGE... installs the packages of what is missing.
define ensure
missing=; \
for pair in $(1); do \
  want=$${pair%%:*}; \
  case $$want in \
    /*) [ -e "$$want" ] || missing="$$missing $${pair##*:}" ;; \
    *) PATH=$$PATH:/usr/sbin:/sbin command -v "$$want" >/dev/null || missing="$$missing $${pair##*:}" ;; \
  esac; \
done; \
if [ -n "$$missing" ]; then \
  if [ "$$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then echo "please install:$$missing" >&2; exit 1; fi; \
  echo "installing:$$missing"; \
  DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $$missing >/dev/null 2>&1 || \
  { apt-get update -q >/dev/null; DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $$missing; }; \
fi
endef

# proto DIR generates Go code of all .proto files below DIR.
define proto
files=$$(find . -name '*.proto' -not -path './build/*' | sort); \
if [ -n "$$files" ]; then \
  $(call ensure,protoc:protobuf-compiler); \
  bin=$$(mktemp -d); \
  go build -modfile=test/tools/go.mod -o "$$bin/" google.golang.org/protobuf/cmd/protoc-gen-go google.golang.org/grpc/cmd/protoc-gen-go-grpc; \
  PATH="$$bin:$$PATH" protoc -I . --go_out=$(1) --go_opt=paths=source_relative --go-grpc_out=$(1) --go-grpc_opt=paths=source_relative $$files; \
  rm -rf "$$bin"; \
fi
endef
