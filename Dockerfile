# The service with SQLite on a volume, or with PostgreSQL by JOBLEDGER_DATABASE:
#
#   docker build -t jobledger .
#   docker run -p 127.0.0.1:50051:50051 -v jobledger:/data -e JOBLEDGER_INSECURE=true jobledger
#   docker run -p 50051:50051 -v jobledger:/data -v ./tls:/tls:ro \
#     -e JOBLEDGER_TLS_CERT=/tls/tls.crt -e JOBLEDGER_TLS_KEY=/tls/tls.key jobledger
#   docker run … -e JOBLEDGER_DATABASE=postgresql://user:password@host/name jobledger
#
# It serves all addresses of the container, so it needs JOBLEDGER_TLS_CERT or
# JOBLEDGER_INSECURE.

# Any image of a Python that the projects claim, with `python` and its `venv`.
ARG PYTHON=docker.io/library/python:3.13.15-slim-trixie@sha256:7c61056e61ac89e852de05f3dc6fa51a6dd2181797bceed46aa725dd7cb2cd3b

FROM ${PYTHON} AS build
# A package index, if it is not pip's default.
ARG PIP_INDEX_URL
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /build
ENV PATH=/build/bin:$PATH
WORKDIR /src

# All that is installed below comes from /wheels, which holds exactly what the lock allows.
COPY requirements-image.lock ./
RUN pip download --require-hashes --no-deps --only-binary=:all: -r requirements-image.lock -d /wheels
RUN pip install --no-index --find-links /wheels hatchling

COPY release ./release
COPY protos ./protos
COPY generated ./generated
COPY client ./client
COPY server ./server
COPY gateway ./gateway
RUN for each in client server gateway; do (cd $each && python -m hatchling build -t wheel -d /wheels) || exit; done
RUN python -m venv --without-pip /opt/jobledger
RUN pip --python /opt/jobledger/bin/python install --no-index --find-links /wheels "jobledger[cli,postgres,otel,admin,jwt,web]"


FROM ${PYTHON}
ARG PYTHON
ARG VERSION
ARG REVISION
LABEL org.opencontainers.image.title="Jobledger" \
      org.opencontainers.image.description="A gRPC job-state service with live watches" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="${PYTHON}"
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin jobledger \
    && install -d -o 10001 -g 10001 /data
COPY --from=build /opt/jobledger /opt/jobledger
ENV PATH=/opt/jobledger/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    JOBLEDGER_LISTEN=0.0.0.0:50051
# By number, so that an orchestrator can see that it is not root.
USER 10001:10001
# Where jobledger.db is, unless JOBLEDGER_DATABASE or JOBLEDGER_DATABASE_FILE says otherwise.
VOLUME /data
WORKDIR /data
EXPOSE 50051
STOPSIGNAL SIGTERM
# Of the server, or of a gateway in its place. It reads the same variables as what it asks: where
# that listens, and its certificate.
HEALTHCHECK --interval=30s --timeout=10s --start-period=30s CMD ["sh", "-c", "if grep -q jobledger-gateway /proc/1/cmdline; then exec jobledger-gateway health; fi; exec jobledger-server health"]
ENTRYPOINT ["jobledger-server"]
CMD ["serve"]
