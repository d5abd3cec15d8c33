# The images are pinned by their digests. `make pin` pins them anew.
ARG BUILD_BASE=rust:1.95-bookworm@sha256:6258907abe69656e41cd992e0b705cdcfabcbbe3db374f92ed2d47121282d4a1
ARG BASE=debian:bookworm-20260824-slim@sha256:88200866dfff7ea7f5cbcb6ec7c8a701889efe6fe859fe64d6990e4b07ea4171

FROM ${BUILD_BASE} AS build
RUN apt-get update && apt-get install -y --no-install-recommends libcurl4-openssl-dev libssl-dev pkg-config zlib1g-dev && rm -rf /var/lib/apt/lists/*
WORKDIR /build
COPY Cargo.toml Cargo.lock ./
COPY src src
COPY config config
COPY benches benches
COPY tests tests
# The line tables for backtraces make up four fifths of the binary. Stripping them keeps the names of functions.
RUN cargo build --release --locked --bin optio-webhooks && strip --strip-debug target/release/optio-webhooks

FROM ${BASE}
LABEL org.opencontainers.image.title="optio-webhooks" \
      org.opencontainers.image.description="Delivers Optio's task transitions to webhooks: signed, retried, inspectable" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="0.1.0"
# The pinned image lacks the fixes that came after it.
RUN apt-get update && apt-get upgrade -y && apt-get install -y --no-install-recommends ca-certificates libcurl4 libssl3 zlib1g && rm -rf /var/lib/apt/lists/*
COPY --from=build /build/target/release/optio-webhooks /usr/local/bin/optio-webhooks
# The user needs no entry in /etc/passwd. The program writes no files, so the root file system may be read-only.
USER 65532:65532
ENV OPTIO_WEBHOOKS__ADMIN__LISTEN=0.0.0.0:8080
# Huge pages, where the kernel gives them unasked, would take up to 40 MiB more for the same data.
ENV MIMALLOC_ALLOW_THP=0
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=6s --start-period=30s --retries=3 CMD ["optio-webhooks", "health"]
# SIGTERM drains. Allow longer than worker.drain_timeout before SIGKILL.
STOPSIGNAL SIGTERM
ENTRYPOINT ["optio-webhooks"]
CMD ["run"]
