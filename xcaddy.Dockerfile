# A Caddy with DSAPP Gateway, built by xcaddy.
#
#   docker build -f xcaddy.Dockerfile -t dsapp-gateway .
#   cp caddy.json.example caddy.json
#   make example-files EXAMPLE_DIR=$PWD/secrets && sudo chown -R 10001 secrets
#   docker run --stop-timeout 60 --sysctl net.ipv4.tcp_migrate_req=1 -p 11080:11080 -e DSAPP_OAS_URL=https://oas.example.com:8888/ \
#     -v ./caddy.json:/etc/caddy/caddy.json:ro -v ./secrets:/etc/dsapp:ro -v dsapp:/data dsapp-gateway
#
# `make xcaddy` runs xcaddy without Docker.

# The base images have exact versions, but their publishers can still replace them.
# To use exactly the images that you have reviewed, give their digests:
#
#   docker buildx imagetools inspect caddy:2.11.9-builder   # and alpine:3.22.2
#   docker build -f xcaddy.Dockerfile \
#     --build-arg BUILDER_DIGEST=@sha256:… --build-arg ALPINE_DIGEST=@sha256:… -t dsapp-gateway .

ARG CADDY_VERSION=2.11.9
ARG ALPINE_VERSION=3.22.2
ARG BUILDER_DIGEST=
ARG ALPINE_DIGEST=

FROM caddy:${CADDY_VERSION}-builder${BUILDER_DIGEST} AS build
ARG CADDY_VERSION
COPY . /src
# With a folder behind the version, xcaddy does not download the module.
RUN xcaddy build "v${CADDY_VERSION}" \
	--with github.com/dsapp-gateway/dsapp-gateway@v1.0.0=/src \
	--output /usr/bin/caddy \
	&& caddy list-modules | grep -q http.handlers.dsapp_gateway

FROM alpine:${ALPINE_VERSION}${ALPINE_DIGEST}
RUN apk add --no-cache ca-certificates \
	&& addgroup -S -g 10001 dsapp \
	&& adduser -S -u 10001 -G dsapp -h /data dsapp \
	&& mkdir -p /config /data /etc/caddy \
	&& install -d -o dsapp -g dsapp -m 0700 /run/caddy \
	&& chown dsapp:dsapp /config /data
COPY --from=build /usr/bin/caddy /usr/bin/caddy
# Caddy keeps certificates and the embedded store below /data, autosaved
# configurations below /config; /run/caddy is for the admin endpoint's socket.
ENV XDG_CONFIG_HOME=/config XDG_DATA_HOME=/data
VOLUME ["/config", "/data"]
USER dsapp
EXPOSE 11080
# Asks the handler dsapp_health as caddy.json.example has it. Change the port and the path if
# the configuration has others. The certificate is for another name than 127.0.0.1, and the
# request does not leave the container.
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s \
	CMD wget -q -O /dev/null --no-check-certificate https://127.0.0.1:11080/health
ENTRYPOINT ["/usr/bin/caddy"]
CMD ["run", "--config", "/etc/caddy/caddy.json"]
