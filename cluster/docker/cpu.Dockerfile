# syntax=docker/dockerfile:1
# A node without an accelerator: the head of a cluster, rehearsals, continuous integration.
#   docker build -f cluster/docker/cpu.Dockerfile -t dure:ray2.60.0-cpu .
# Every version is that of constraints.txt. Secrets come when it runs (environment, Kubernetes Secret), never in here.
FROM python:3.11-slim-bookworm AS build
# deepspeed compiles its kernels when they are first needed, never at installation.
ENV DS_BUILD_OPS=0 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/dure
ENV PATH=/opt/dure/bin:$PATH
WORKDIR /src
# From what changes least to what changes most, so that a change of the code rebuilds the last step only.
COPY constraints.txt pyproject.toml ./
# By its exact version from the index of CPU builds: PyPI's own for Linux bring several GB of CUDA.
RUN pip install --index-url https://download.pytorch.org/whl/cpu torch==2.13.0
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
ENV PATH=/opt/dure/bin:$PATH DS_BUILD_OPS=0 PYTHONUNBUFFERED=1
USER 1000
WORKDIR /home/ray
# No entry point: KubeRay and `ray up` bring their own command.
CMD ["dure", "--help"]
