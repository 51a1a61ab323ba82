# syntax=docker/dockerfile:1
# The server in a container without a system:
#   docker build -t downlink .
#   docker run -p 127.0.0.1:8080:8080 -v downlink:/data downlink \
#     serve --listen 0.0.0.0:8080 --public-url https://events.example.org

FROM rust:1-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends musl-tools cmake \
    && rustup target add x86_64-unknown-linux-musl
WORKDIR /src
COPY . .
RUN cargo build --release --locked -p downlink-server --target x86_64-unknown-linux-musl \
    && strip -o /downlink target/x86_64-unknown-linux-musl/release/downlink \
    && mkdir /data

FROM scratch
COPY --from=build /downlink /downlink
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY LICENSE-APACHE LICENSE-MIT /
# The user has no name here. A new volume at /data belongs to it.
COPY --from=build --chown=65532:65532 /data /data
USER 65532:65532
WORKDIR /data
VOLUME /data
EXPOSE 8080
STOPSIGNAL SIGTERM
# Asks the server at 127.0.0.1:8080. DOWNLINK_URL sets another address.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s CMD ["/downlink", "health"]
ENTRYPOINT ["/downlink"]
CMD ["serve", "--listen", "0.0.0.0:8080"]
