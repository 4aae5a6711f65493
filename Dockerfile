# nnunet_ext with the server. CPU:  docker build -t nnunet-ext .
# CUDA: any image with Python 3.10 to 3.13 and a CUDA build of torch, which is kept:
#   docker build -t nnunet-ext-cuda --build-arg BASE=pytorch/pytorch:2.8.0-cuda12.8-cudnn9-runtime .
# Nothing is loaded from the network when it runs.
ARG BASE=python:3.12-slim-bookworm
FROM ${BASE}

# What the base has of torch stays; where it has none, the CPU build comes from this index. Give another index, or an
# empty one for a mirror of PyPI.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu

ENV PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_BREAK_SYSTEM_PACKAGES=1

WORKDIR /opt/nnunet_ext
COPY pyproject.toml README.md LICENSE constraints.txt ./
COPY nnunet_ext ./nnunet_ext
RUN python -c "import torch" 2>/dev/null \
    || python -m pip install ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch torchvision
# torch is pinned to what is there: the constraints' own version may be another build.
RUN python -c "from importlib.metadata import version; print('torch==' + version('torch'))" > /tmp/torch.txt \
    && grep -v '^torch==' constraints.txt > /tmp/others.txt \
    && python -m pip install -c /tmp/torch.txt -c /tmp/others.txt ".[serve]" \
    && rm /tmp/torch.txt /tmp/others.txt \
    && useradd --create-home --uid 10001 nnunet

USER nnunet
WORKDIR /home/nnunet
# nnU-Net warns without its folders; matplotlib and numba need somewhere to write.
ENV nnUNet_raw=/data/nnUNet_raw \
    nnUNet_preprocessed=/data/nnUNet_preprocessed \
    nnUNet_results=/data/nnUNet_results \
    MPLCONFIGDIR=/tmp/matplotlib \
    NNUNET_EXT_CACHE=/tmp/nnunet_ext-cache

EXPOSE 8000
ENTRYPOINT ["nnunet_ext"]
CMD ["--help"]
