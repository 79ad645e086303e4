# The job container for GPU runners:
#
#   jobs:
#     gate:
#       runs-on: [self-hosted, gpu]
#       container: {image: your-registry/adapterbot, options: --gpus all}
#       steps:
#         - uses: actions/checkout@v6
#         - uses: org/adapter-action@v1
#           with: {python: /opt/adapterbot/bin/python}
#
# torch brings its own CUDA libraries, so a CUDA *base* image is enough; what the host must have is
# a driver new enough for it. Any Debian or Ubuntu with Python 3.11 or newer will do: pin yours by
# digest with --build-arg BASE_IMAGE=…@sha256:….
ARG BASE_IMAGE=nvidia/cuda:13.0.2-base-ubuntu24.04

# hadolint ignore=DL3006
FROM ${BASE_IMAGE}

# Versions come from the base image's archive at the time of the build, as its security fixes do.
# hadolint ignore=DL3008
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends \
        ca-certificates git git-lfs python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*

# The workspace that a runner mounts belongs to the runner's user, and Git would refuse to read it.
RUN git config --system --add safe.directory '*' \
    && useradd --create-home --uid 1001 adapterbot

# What changes seldom comes first: the requirements, gigabytes, are a layer of their own that a
# change of adapterbot's code leaves alone.
COPY pyproject.toml constraints.txt /src/
COPY scripts/setup_env.py /src/scripts/
WORKDIR /src
ARG EXTRAS=eval,peft
RUN python3 -m venv /opt/adapterbot \
    && pip="/opt/adapterbot/bin/python -m pip --disable-pip-version-check --no-cache-dir" \
    && /opt/adapterbot/bin/python -I scripts/setup_env.py --list "${EXTRAS}" > wanted.txt \
    && $pip install --constraint constraints.txt pip \
    && $pip install --constraint constraints.txt --build-constraint constraints.txt \
        --only-binary=:all: --requirement wanted.txt

COPY LICENSE README.md /src/
COPY adapterbot /src/adapterbot
COPY examples /src/examples
RUN /opt/adapterbot/bin/python -m pip install --disable-pip-version-check --no-cache-dir \
        --no-deps --build-constraint constraints.txt .

ENV PATH=/opt/adapterbot/bin:$PATH
# The user of GitHub's hosted runners; `options: --user` takes another.
USER 1001
WORKDIR /workspace
CMD ["adapterbot", "doctor"]
