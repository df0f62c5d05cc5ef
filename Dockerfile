# A static binary on a base without a shell. For both platforms, without emulation:
#   docker buildx build --platform linux/amd64,linux/arm64 --tag REGISTRY/lightfi-exporter:0.1.0 --push .
# Read-only, without capabilities:
#   docker run --rm --read-only --tmpfs /tmp --cap-drop ALL --publish 10420:10420 IMAGE demo

# The compiler runs on the platform of the machine and builds for the image's.
FROM --platform=$BUILDPLATFORM rust:1.95-bookworm AS build
WORKDIR /build
# Cargo's own file says for what and with what, so that no step below has to. Static on the C library of the image: since
# 2.34 glibc resolves names in files and by DNS without loading modules. The target is named so that the flag does not
# reach macros and build scripts. The C compiler is the one of the release of Debian, in whichever version.
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

# Dependencies first, with an empty program around them: this layer stays until Cargo.lock changes.
COPY Cargo.toml Cargo.lock build.rs ./
COPY crates/exporter-toolkit/Cargo.toml crates/exporter-toolkit/
COPY crates/lightfi-simulator/Cargo.toml crates/lightfi-simulator/
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
# The empty program was newer than the sources: their times must change for cargo to see them.
RUN find src crates -name '*.rs' -exec touch {} + \
    && cargo build --release --locked \
    && cp target/*/release/lightfi-exporter /lightfi-exporter \
    # A place for the token store that its user may write.
    && install --directory --mode=0700 /state/lightfi-exporter

# Certificate authorities, /etc/passwd, /tmp, and nothing to run.
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
# Bodies of megabytes go back to the system when a newer one takes their place: glibc would learn to keep memory of their
# size, which more than doubled what stays resident with thousands of sensors. All threads share one heap: what one of
# them frees, another can use.
ENV MALLOC_MMAP_THRESHOLD_=262144
ENV MALLOC_ARENA_MAX=1
USER 65532:65532
WORKDIR /var/lib/lightfi-exporter
EXPOSE 10420
HEALTHCHECK --interval=30s --timeout=6s --start-period=5s \
    CMD ["/usr/local/bin/lightfi-exporter", "check", "--health", "http://127.0.0.1:10420/"]
ENTRYPOINT ["/usr/local/bin/lightfi-exporter"]
