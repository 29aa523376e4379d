# iptables and tc, for docker-compose.faults.yml. No node runs in it.
# The same base as a node's image, so that there is only one to pull.

ARG PYTHON_IMAGE=python:3.12.11-slim-bookworm
FROM ${PYTHON_IMAGE}

RUN apt-get update \
    && apt-get install --yes --no-install-recommends iproute2 iptables \
    && rm -rf /var/lib/apt/lists/*

CMD ["sleep", "infinity"]
