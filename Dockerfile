# Images of mailtide: `light` reads, parses and assigns mail (no torch); `cpu` and `cuda` train as well.
#   docker build --target light -t mailtide:0.1.0-light .
# Versions are those of constraints.txt. The CUDA libraries come with torch's wheels; the host brings the driver.

FROM python:3.11.13-slim-bookworm AS source
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /opt/mailtide
WORKDIR /src
COPY constraints.txt pyproject.toml README.md LICENSE ./
COPY pipeline pipeline
COPY retrain retrain
COPY registry registry
COPY streams streams
COPY configs configs

FROM source AS built-light
RUN /opt/mailtide/bin/pip install --constraint constraints.txt '.[kafka,keyring,secrets]'

# torch from an index of CPU-only wheels makes the image some gigabytes smaller; without one it is the same as for CUDA,
# which trains on a CPU all the same.
FROM source AS built-cpu
ARG TORCH_INDEX=""
RUN if [ -n "$TORCH_INDEX" ]; then \
        /opt/mailtide/bin/pip install --constraint constraints.txt --index-url "$TORCH_INDEX" torch; \
    fi && /opt/mailtide/bin/pip install --constraint constraints.txt '.[train,kafka,keyring,secrets]'

FROM source AS built-cuda
RUN /opt/mailtide/bin/pip install --constraint constraints.txt '.[train,benchmarks,kafka,keyring,secrets]'

FROM python:3.11.13-slim-bookworm AS runtime
RUN groupadd --gid 10001 mailtide \
    && useradd --uid 10001 --gid 10001 --home-dir /var/lib/mailtide --no-create-home --shell /usr/sbin/nologin mailtide \
    && install --directory --mode 0700 --owner 10001 --group 10001 /var/lib/mailtide
ENV PATH=/opt/mailtide/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HF_HUB_DISABLE_TELEMETRY=1 \
    MAILTIDE_HOME=/var/lib/mailtide
USER 10001:10001
VOLUME /var/lib/mailtide
STOPSIGNAL SIGTERM
ENTRYPOINT ["mailtide"]
CMD ["run"]

FROM runtime AS light
COPY --from=built-light /opt/mailtide /opt/mailtide

FROM runtime AS cpu
COPY --from=built-cpu /opt/mailtide /opt/mailtide

FROM runtime AS cuda
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=built-cuda /opt/mailtide /opt/mailtide
