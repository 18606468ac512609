# syntax=docker/dockerfile:1
# A node with NVIDIA GPUs. CUDA comes with torch's wheels, the driver from the host through NVIDIA's container toolkit.
#   docker build -f cluster/docker/cuda.Dockerfile -t dure:ray2.60.0-cuda .
# Every version is that of constraints.txt. Secrets come when it runs (environment, Kubernetes Secret), never in here.
FROM python:3.11-slim-bookworm AS build
# deepspeed compiles its kernels when they are first needed, never at installation.
ENV DS_BUILD_OPS=0 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/dure
ENV PATH=/opt/dure/bin:$PATH
WORKDIR /src
# From what changes least to what changes most, so that a change of the code rebuilds the last step only.
COPY constraints.txt pyproject.toml ./
# By its exact version: PyPI's build for Linux brings the CUDA libraries that it was made with.
RUN pip install torch==2.13.0
RUN python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies'], sep='\n')" > requirements.txt \
    && pip install -c constraints.txt -r requirements.txt
COPY README.md LICENSE ./
COPY platform platform
COPY trainables trainables
COPY search_spaces search_spaces
COPY cluster cluster
RUN pip install --no-deps .

# Compilers and caches stay behind.
FROM python:3.11-slim-bookworm
# wget: KubeRay asks Ray's ports with it whether a pod lives.
RUN apt-get update && apt-get install --no-install-recommends -y wget && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 ray
COPY --from=build /opt/dure /opt/dure
ENV PATH=/opt/dure/bin:$PATH DS_BUILD_OPS=0 PYTHONUNBUFFERED=1 \
    NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
# There is no compiler and no nvcc: profiles with DeepSpeed's offloading build a kernel at first use and need an image
# on top of this one that has them. Plain training, LoRA, QLoRA and ZeRO without offloading do not.
USER 1000
WORKDIR /home/ray
# No entry point: KubeRay and `ray up` bring their own command.
CMD ["dure", "--help"]
