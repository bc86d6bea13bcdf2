# make help lists the targets.
SHELL := /bin/bash
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

VERSION ?= 0.1.0
LDFLAGS := -s -w -X github.com/emqx-bg/emqx-bg-operator/pkg/version.Version=$(VERSION)
SIM_RUNS ?= 10000
DEMO_DIR ?= $(CURDIR)/.cluster/demo
LICENCE ?= key
SCALE_DIR ?= $(CURDIR)/.cluster/scale
SCALE_FLAGS ?=
IMAGE_ARCH ?= $(shell go env GOARCH)

.PHONY: help
help: ## List the targets.
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: bin/kube ## Build the operator and the local cluster into bin/.
	CGO_ENABLED=0 go build -ldflags '$(LDFLAGS)' -o bin/emqx-bg-operator ./cmd/emqx-bg-operator
	cd e2e && go build -ldflags '-s -w' -o ../bin/cluster ./cmd/cluster

# The control plane only changes with its modules. It takes ten to twenty minutes on two cores the first time.
bin/kube: e2e/go.mod e2e/go.sum e2e/cmd/kube/main.go hack/kube-ldflags.sh
	@flags=$$(hack/kube-ldflags.sh) && hack/progress.sh "building Kubernetes, once, for ten to twenty minutes on two cores" \
	  go build -C e2e -v -ldflags "-s -w $$flags" -o ../bin/kube ./cmd/kube

# What real nodes run besides: kubelet and kube-proxy, CoreDNS, the provisioner of volumes, and for images the stand-in.
bin/kubenode: e2e/go.mod e2e/go.sum e2e/cmd/kubenode/main.go hack/kube-ldflags.sh
	@flags=$$(hack/kube-ldflags.sh) && hack/progress.sh "building kubelet and kube-proxy, once, for a few minutes on two cores" \
	  go build -C e2e -v -ldflags "-s -w $$flags" -o ../bin/kubenode ./cmd/kubenode

.PHONY: build-node
build-node: build bin/kubenode ## Build what real nodes need besides.
	mkdir -p bin/addons
	cd e2e/addons && CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o ../../bin/addons/ ./cmd/coredns
	cd e2e && CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o ../bin/addons/ ./cmd/emqx ./cmd/provisioner

.PHONY: generate
generate: ## Rebuild what is derived from code.
	hack/generate.sh

.PHONY: tidy
tidy: ## Tidy all modules.
	go mod tidy
	cd e2e && go mod tidy
	cd e2e/addons && go mod tidy
	cd hack/tools && go mod tidy

.PHONY: verify
verify: ## Fail when something generated is stale, or a module is not tidy.
	hack/verify.sh

.PHONY: lint
lint: build ## Format, vet, golangci-lint and govulncheck over all modules.
	hack/lint.sh

.PHONY: test-unit
test-unit: ## Unit, table, property and contract tests of the operator, with the race detector.
	go test -race -count=1 ./...

.PHONY: test-sim
test-sim: ## Simulate SIM_RUNS upgrades with random events and faults.
	GOGC=4000 go test -count=1 -timeout 30m ./pkg/upgrade/simulation -run TestSimulation -sim.runs $(SIM_RUNS)

.PHONY: mutate
mutate: ## Break the operator by hand, a line at a time, and see which tests notice (about a quarter of an hour).
	go run ./hack/mutate

.PHONY: test
test: build verify ## Everything: what is generated is fresh; unit, simulation, contract and end-to-end tests, with one closing summary.
	hack/real-nodes.sh build
	hack/test.sh $(SIM_RUNS)

.PHONY: node-packages
node-packages: ## Install the Debian packages that real nodes need, if this is root.
	hack/real-nodes.sh packages

.PHONY: test-node
test-node: node-packages ## The tests on real nodes, kubelet and containerd: a quarter of an hour at most once built. Needs root.
	hack/real-nodes.sh build
	cd e2e && go test -count=1 -v -p 1 -timeout 30m ./realnode/...

.PHONY: demo
demo: build ## Upgrade a cluster with 3,000 clients before your eyes; LICENCE=none replaces a single node in place.
	bin/cluster demo --dir $(DEMO_DIR) --licence $(LICENCE)

.PHONY: demo-up
demo-up: build ## The same, and leave it running to look around.
	bin/cluster demo --dir $(DEMO_DIR) --licence $(LICENCE) --keep

.PHONY: demo-down
demo-down: ## Stop what demo-up left running.
	bin/cluster down --dir $(DEMO_DIR)

.PHONY: bench-scale
bench-scale: build ## Measure the operator with up to 1,000 clusters (docs/scale.md); SCALE_FLAGS="--clusters 100" for one size.
	bin/cluster bench-scale --dir $(SCALE_DIR) $(SCALE_FLAGS)

.PHONY: image
image: ## Build the container image bin/image/emqx-bg-operator.tar, an OCI archive; needs no container engine.
	CGO_ENABLED=0 GOOS=linux GOARCH=$(IMAGE_ARCH) go build -trimpath -buildvcs=false -ldflags '$(LDFLAGS)' -o bin/image/emqx-bg-operator ./cmd/emqx-bg-operator
	cd e2e && go run ./cmd/image --binary ../bin/image/emqx-bg-operator --architecture $(IMAGE_ARCH) \
	  --name docker.io/emqx-bg/emqx-bg-operator:$(VERSION) --out ../bin/image/emqx-bg-operator.tar

.PHONY: clean
clean: ## Remove what was built.
	rm -rf bin
