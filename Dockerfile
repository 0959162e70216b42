# The service with SQLite on a volume, or with PostgreSQL by JOBLEDGER_DATABASE:
#
#   docker build -t jobledger .
#   docker run -p 50051:50051 -v jobledger:/data jobledger
#   docker run -p 50051:50051 -e JOBLEDGER_DATABASE=postgresql://user:password@host/name jobledger

FROM python:3.13-slim AS build
# Where to find packages, if not where pip looks by itself.
ARG PIP_INDEX_URL
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src

# All that is installed below comes from /wheels, which holds exactly what the lock allows.
COPY requirements.lock ./
RUN pip download --require-hashes --no-deps --only-binary=:all: -r requirements.lock -d /wheels
RUN pip install --no-index --find-links /wheels hatchling

COPY pyproject.toml README.md LICENSE ./
COPY protos ./protos
COPY generated ./generated
COPY client ./client
COPY server ./server
RUN python -m hatchling build -t wheel -d /dist
RUN python -m venv --without-pip /opt/jobledger
RUN pip --python /opt/jobledger/bin/python install --no-index --find-links /wheels --find-links /dist "jobledger[postgres,metrics]"


FROM python:3.13-slim
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin jobledger
RUN install -d -o 10001 -g 10001 /data
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
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s \
    CMD ["jobledger-server", "health", "--target", "127.0.0.1:50051"]
ENTRYPOINT ["jobledger-server"]
CMD ["serve"]
