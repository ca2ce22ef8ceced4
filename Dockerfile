# An image with nothing but the program `stevedore` and the few libraries that it needs: no shell, no package.
#
#   docker build -t stevedore .                                   where images can be fetched: it is built inside
#
#   cargo build --release -p cli                                  elsewhere: of a program that was built outside
#   deploy/root target/release/stevedore target/image
#   buildah bud --format docker --target given -t stevedore .     or podman build, or docker build
#
# `--format docker`, as the other format has no health checks.

FROM scratch AS base
# A server in a container is reached from outside of it. Health is asked for within.
ENV STEVEDORE_LISTEN=0.0.0.0 STEVEDORE_ADMIN=0.0.0.0:7900 STEVEDORE_CLUSTER=/etc/stevedore
USER 65532:65532
ENTRYPOINT ["/stevedore"]
CMD ["--help"]
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=6s --start-period=60s CMD ["/stevedore", "health"]
EXPOSE 7000 7100 7900 8080 9000

FROM base AS given
COPY target/image/root /
COPY --chown=65532:65532 target/image/own /data
COPY --chown=65532:65532 target/image/own /etc/stevedore

FROM docker.io/library/rust:1.95.0-bookworm AS build
WORKDIR /source
# Of the image, as it is: rust-toolchain.toml also names what formats and checks the source, which would be fetched first.
ENV RUSTUP_TOOLCHAIN=1.95.0
COPY . .
RUN cargo build --release --locked -p cli && deploy/root target/release/stevedore /image

FROM base
COPY --from=build /image/root /
COPY --from=build --chown=65532:65532 /image/own /data
COPY --from=build --chown=65532:65532 /image/own /etc/stevedore
