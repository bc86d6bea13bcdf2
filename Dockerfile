# A static binary and nothing else. The build runs on the machine that builds, for the platform that is asked for.
FROM --platform=$BUILDPLATFORM golang:1.26 AS build
ARG TARGETOS TARGETARCH VERSION=dev
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY cmd cmd
COPY pkg pkg
RUN CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH go build -trimpath \
    -ldflags "-s -w -X github.com/emqx-bg/emqx-bg-operator/pkg/version.Version=$VERSION" \
    -o /emqx-bg-operator ./cmd/emqx-bg-operator

FROM scratch
COPY --from=build /emqx-bg-operator /emqx-bg-operator
USER 65532:65532
ENTRYPOINT ["/emqx-bg-operator"]
