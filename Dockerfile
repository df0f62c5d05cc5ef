# A static binary on a base without a shell. For both platforms:
#   docker buildx build --platform linux/amd64,linux/arm64 --tag REGISTRY/lightfi-exporter:0.1.0 --push .
# Read-only, without capabilities:
#   docker run --rm --read-only --tmpfs /tmp --cap-drop ALL --publish 10420:10420 IMAGE demo

FROM rust:1.95-bookworm AS build
WORKDIR /build
# Static on the C library of the image: since 2.34 glibc resolves names in files and by DNS without loading modules. The
# target is named so that the flag does not reach macros and build scripts.
ENV RUSTFLAGS="-C target-feature=+crt-static"

# Dependencies first, with an empty program around them: this layer stays until Cargo.lock changes.
COPY Cargo.toml Cargo.lock build.rs ./
RUN mkdir src \
    && echo 'fn main() {}' > src/main.rs \
    && touch src/lib.rs \
    && cargo build --release --locked --target "$(rustc --print host-tuple)" \
    && rm -r src

COPY askama.toml ./
COPY src src
ARG REVISION=unknown
ENV LIGHTFI_EXPORTER_REVISION=${REVISION}
# The empty program was newer than the sources: their times must change for cargo to see them.
RUN find src -name '*.rs' -exec touch {} + \
    && cargo build --release --locked --target "$(rustc --print host-tuple)" \
    && cp "target/$(rustc --print host-tuple)/release/lightfi-exporter" /lightfi-exporter \
    # A place for the token store that its user may write.
    && install --directory --mode=0700 --owner=65532 --group=65532 /state

# Certificate authorities, /etc/passwd, /tmp, and nothing to run.
FROM gcr.io/distroless/static-debian12:nonroot
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="lightfi-exporter" \
      org.opencontainers.image.description="Prometheus exporter for the LightFi sensor cloud" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build --chown=65532:65532 /state /var/lib/lightfi-exporter
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
