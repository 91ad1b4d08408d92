# Redis Agent: one image for every role. `docker build -t redis-agent .`

ARG PYTHON_IMAGE=python:3.11-slim

# Everything is installed into one directory here; what is needed for that stays behind.
FROM ${PYTHON_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
RUN python -m venv --without-pip /opt/redis-agent
# Before the sources: these change seldom, and Docker remembers the layer.
# With what traces (docs/tracing.md): 9 MB, of use only where OpenTelemetry's variables ask for it.
COPY requirements/tracing.txt requirements/build.txt requirements/
RUN pip --python /opt/redis-agent/bin/python install --require-hashes --only-binary :all: -r requirements/tracing.txt
RUN pip install --require-hashes --only-binary :all: -r requirements/build.txt
COPY LICENSE README.md pyproject.toml ./
COPY redis_agent redis_agent
RUN pip wheel --no-deps --no-build-isolation --wheel-dir dist . \
    && pip --python /opt/redis-agent/bin/python install --no-deps --no-index dist/*.whl

FROM ${PYTHON_IMAGE}
ARG VERSION=0.2.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Redis Agent" \
      org.opencontainers.image.description="Turns the metric events of running experiments into exact aggregates and alerts worth reading, on Redis." \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="MIT"
# Nothing in the image can install or compile anything; the user owns nothing in it.
RUN pip uninstall --yes --quiet --root-user-action=ignore setuptools wheel pip \
    && rm -rf /root/.cache /usr/local/lib/python3*/ensurepip /usr/local/lib/python3*/site-packages/* \
    && groupadd --gid 10001 redis-agent \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin redis-agent
COPY --from=build /opt/redis-agent /opt/redis-agent
# The code was compiled at the build: nothing is written at run time, and the root file system may be read-only.
ENV PATH="/opt/redis-agent/bin:${PATH}" \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    REDIS_AGENT_HTTP_HOST=0.0.0.0
USER 10001:10001
WORKDIR /
EXPOSE 9464
# The process itself gets the signal (exec form), drains, and is gone within REDIS_AGENT_SHUTDOWN_SECONDS (10) and one
# second: stop with a longer grace period.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 CMD ["redis-agent", "health"]
ENTRYPOINT ["redis-agent"]
CMD ["run"]
