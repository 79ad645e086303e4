# The image of head and workers in ray-cluster.yaml: ours, built with EXTRAS=eval,peft,ray, and on
# top of it what KubeRay's health checks take: Ray's dashboard agent, whom they ask, and in older
# releases of KubeRay wget, with which they do. Those also begin with a login shell, whose PATH is
# not the image's.
ARG IMAGE=adapterbot-ray
# hadolint ignore=DL3006
FROM ${IMAGE}
USER 0
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends wget \
    && rm -rf /var/lib/apt/lists/* \
    && /opt/adapterbot/bin/python -m pip install --disable-pip-version-check --no-cache-dir \
        --constraint /src/constraints.txt --only-binary=:all: 'ray[default]' \
    && ln -s /opt/adapterbot/bin/ray /usr/local/bin/ray
USER 1001
