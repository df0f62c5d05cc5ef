# A static binary on a base image without a shell. To build for two platforms without emulation:
#   docker buildx build --platform linux/amd64,linux/arm64 --tag REGISTRY/lightfi-exporter:0.1.0 --push .
# To run it read-only and without capabilities:
#   docker run --rm --read-only --tmpfs /tmp --cap-drop ALL --publish 10420:10420 IMAGE demo

# The compiler runs on the build platform and compiles for the target platform.
FROM --platform=$BUILDPLATFORM rust:1.95-bookworm AS build
WORKDIR /build
# .cargo/config.toml sets target and linker for all steps below. The binary is linked statically with glibc, which since 2.34
# resolves names from files and DNS without loading modules. The target is named so that the flag does not apply to macros and
# build scripts. The C compiler is Debian's, in any version.
ARG TARGETARCH
# hadolint ignore=DL3008
RUN case "$TARGETARCH" in \
        amd64) cpu=x86_64 package=gcc-x86-64-linux-gnu ;; \
        arm64) cpu=aarch64 package=gcc-aarch64-linux-gnu ;; \
        *) echo "TARGETARCH is '$TARGETARCH': build for linux/amd64 or linux/arm64, with BuildKit" >&2; exit 1 ;; \
    esac \
    && if ! command -v "$cpu-linux-gnu-gcc"; then \
        apt-get update \
        && apt-get install --yes --no-install-recommends "$package" "libc6-dev-$TARGETARCH-cross" \
        && rm -rf /var/lib/apt/lists/*; \
    fi \
    && rustup target add "$cpu-unknown-linux-gnu" \
    && mkdir .cargo \
    && printf '%s\n' > .cargo/config.toml \
        "build.target = '$cpu-unknown-linux-gnu'" \
        "target.$cpu-unknown-linux-gnu.linker = '$cpu-linux-gnu-gcc'" \
        "target.$cpu-unknown-linux-gnu.rustflags = ['-C', 'target-feature=+crt-static']" \
        "env.CC_${cpu}_unknown_linux_gnu = '$cpu-linux-gnu-gcc'"

# Build the dependencies first, with empty crates: this layer is cached until Cargo.lock changes.
COPY Cargo.toml Cargo.lock build.rs ./
COPY crates/exporter-toolkit/Cargo.toml crates/exporter-toolkit/
COPY crates/lightfi-simulator/Cargo.toml crates/lightfi-simulator/
# A member of the workspace, which is not built.
COPY fuzz/Cargo.toml fuzz/
RUN mkdir src crates/exporter-toolkit/src crates/lightfi-simulator/src \
    && echo 'fn main() {}' > src/main.rs \
    && touch src/lib.rs crates/exporter-toolkit/src/lib.rs crates/lightfi-simulator/src/lib.rs \
    && cargo build --release --locked \
    && rm -r src crates

COPY askama.toml ./
COPY crates crates
COPY src src
ARG REVISION=unknown
ENV LIGHTFI_EXPORTER_REVISION=${REVISION}
# The empty crates are newer than the sources: touch the sources so that cargo rebuilds them.
RUN find src crates -name '*.rs' -exec touch {} + \
    && cargo build --release --locked \
    && cp target/*/release/lightfi-exporter /lightfi-exporter \
    # A directory for the token store that the image's user can write to.
    && install --directory --mode=0700 /state/lightfi-exporter

# The base has certificate authorities, /etc/passwd and /tmp, but no programs.
FROM gcr.io/distroless/static-debian12:nonroot
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="lightfi-exporter" \
      org.opencontainers.image.description="Prometheus exporter for the LightFi sensor cloud" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build --chown=65532:65532 /state /var/lib
COPY --from=build /lightfi-exporter /usr/local/bin/lightfi-exporter
COPY LICENSE /usr/share/doc/lightfi-exporter/LICENSE
# Return large freed buffers to the system: otherwise glibc raises its threshold and keeps them, which more than doubles the
# resident memory with thousands of sensors. One heap for all threads, so that one can use what another frees.
ENV MALLOC_MMAP_THRESHOLD_=262144
ENV MALLOC_ARENA_MAX=1
USER 65532:65532
WORKDIR /var/lib/lightfi-exporter
EXPOSE 10420
HEALTHCHECK --interval=30s --timeout=6s --start-period=5s \
    CMD ["/usr/local/bin/lightfi-exporter", "check", "--health", "http://127.0.0.1:10420/"]
ENTRYPOINT ["/usr/local/bin/lightfi-exporter"]
