# stcp-proxy in a container: not root, on a read-only root file system, no shell needed to run it. docs/SIDECAR.md tells how to use it.
#
#   docker build --tag stcp-proxy .
#   docker build --target intercept --tag stcp-proxy-intercept .      the same and what installs the rules of interception, as root
#   docker build --target distroless --tag stcp-proxy-distroless .    without shell and package manager, for any neighbour
#
# For several processors, each stage runs on its own kind: docker buildx build --platform linux/amd64,linux/arm64 --tag stcp-proxy .
#
# Without a package index in reach of the build, put wheels into a folder wheels/ beside this file:
#
#   pip wheel --wheel-dir wheels '.[otlp]' 'setuptools>=77'
#   docker build --build-arg PIP_OPTIONS=--no-index --tag stcp-proxy .

# Any image with Python 3.11 or later.
ARG BASE=python:3.13-slim
# The same interpreter where it can make a virtual environment, and best with a compiler.
ARG BUILD_BASE=${BASE}

FROM ${BUILD_BASE} AS build
ARG PIP_OPTIONS=
WORKDIR /src
# For the part of the byte path that is built in C; a base that has no compiler, and no apt to get one, goes without, and is slower.
RUN python3 -c 'import os, sysconfig, sys; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' || headers=python3-dev; \
    if [ -n "$headers" ] || ! command -v gcc; then \
        { apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev $headers; } || echo "not compiled: no gcc"; \
    fi
COPY wheels* pyproject.toml setup.py README.md LICENSE ./
COPY stcp_proxy ./stcp_proxy
RUN python3 -m venv /opt/pip \
    && python3 -m venv --without-pip /opt/stcp \
    && /opt/pip/bin/pip --python /opt/stcp/bin/python install --no-cache-dir --no-compile --disable-pip-version-check \
        --root-user-action=ignore --find-links /src ${PIP_OPTIONS} '.[otlp]' \
    && find /opt/stcp/bin ! -name "python*" ! -name stcp-proxy -type f -delete
COPY tools/precompile.py packaging/trim tools/distroless.py ./
RUN sh trim /opt/stcp/lib/python3*/site-packages
# Without columns of lines: a traceback underlines nothing where there are no sources.
RUN /opt/stcp/bin/python -I -X no_debug_ranges precompile.py /opt/stcp/cache && mkdir /keys

FROM build AS rootfs
RUN python3 distroless.py /opt/stcp /rootfs

FROM scratch AS distroless
ARG VERSION=
ARG REVISION=
LABEL org.opencontainers.image.title="stcp-proxy" \
      org.opencontainers.image.description="Transparent TCP proxy sidecar, in an image without shell and package manager" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=rootfs /rootfs /
ENV PATH=/opt/stcp/bin:/usr/bin
USER 47443:47443
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s CMD ["stcp-proxy", "wait", "/etc/stcp/config.yaml", "--timeout", "2s"]
ENTRYPOINT ["env", "--block-signal=HUP,INT,QUIT,TERM,USR1,USR2", "stcp-proxy"]
CMD ["run", "/etc/stcp/config.yaml"]

FROM ${BASE} AS proxy
ARG VERSION=
ARG REVISION=
LABEL org.opencontainers.image.title="stcp-proxy" \
      org.opencontainers.image.description="Transparent TCP proxy sidecar: plain TCP in, mutually authenticated and encrypted STCP out" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /opt/stcp /opt/stcp
# For keys that a container makes itself: a volume mounted here belongs to the proxy's user.
COPY --from=build --chown=47443:47443 /keys /var/lib/stcp
# Behind the others: an application in an image made from this one keeps its own python.
ENV PATH="${PATH}:/opt/stcp/bin"
# The proxy's user has a name, and no program of the base gives a process the rights of another user.
RUN echo "stcp:x:47443:47443:stcp-proxy:/var/lib/stcp:/usr/sbin/nologin" >>/etc/passwd && echo "stcp:x:47443:" >>/etc/group \
    && find / -xdev -type f -perm /6000 -exec chmod a-s {} +
RUN env --block-signal=TERM true || { echo "the base image needs an env that knows --block-signal (coreutils 8.31)" >&2; exit 1; }
USER 47443:47443
# Asks the proxy at the file's 'admin' address.
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s CMD ["stcp-proxy", "wait", "/etc/stcp/config.yaml", "--timeout", "2s"]
# Signals wait until the program has handlers: the kernel discards a SIGTERM for a PID 1 that has none yet.
ENTRYPOINT ["env", "--block-signal=HUP,INT,QUIT,TERM,USR1,USR2", "stcp-proxy"]
CMD ["run", "/etc/stcp/config.yaml"]

# An init container's, which needs NET_ADMIN and no key. A base without apt has to bring nft, ip and tc itself.
FROM proxy AS intercept
USER 0:0
RUN if ! command -v nft || ! command -v ip || ! command -v tc; then \
        apt-get update && apt-get install --yes --no-install-recommends nftables iproute2 && rm -rf /var/lib/apt/lists/*; \
    fi
HEALTHCHECK NONE
CMD ["intercept", "/etc/stcp/config.yaml", "--uid", "47443", "--apply"]

# What is built unless a target is named.
FROM proxy
