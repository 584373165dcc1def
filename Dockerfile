# The image of the template, for launcher and workers: Dataflow runs the template launcher in it to create the job, and
# Beam's boot on every worker. Both use the installed packages and install none.
# cloudbuild.yaml replaces these tags by the digests that they have at the time of the build.
ARG LAUNCHER=gcr.io/dataflow-templates-base/python313-template-launcher-base:flex_templates_base_image_release_20260720_RC00
ARG BEAM=apache/beam_python3.13_sdk:2.77.0
FROM ${LAUNCHER} AS launcher

FROM ${BEAM}

COPY --from=launcher /opt/google/dataflow/python_template_launcher /opt/google/dataflow/

COPY requirements.txt /src/
RUN pip install --no-cache-dir --no-deps --require-hashes --only-binary=:all: -r /src/requirements.txt

# The full name of this image, which Dataflow does not pass to the launcher.
ARG IMAGE
WORKDIR /template
COPY setup.py pyproject.toml /src/
COPY pipeline /src/pipeline
RUN : "${IMAGE:?name the image it will be: docker build --build-arg IMAGE=NAME -t NAME .}" \
    && pip install --no-cache-dir --no-deps --no-build-isolation /src \
    && pip check \
    && cp /src/pipeline/main.py . \
    && rm -r /src

# Neither FLEX_TEMPLATE_PYTHON_REQUIREMENTS_FILE nor FLEX_TEMPLATE_PYTHON_SETUP_FILE is set: they make Beam download and
# stage packages at every launch, and workers install them again.
ENV FLEX_TEMPLATE_PYTHON_PY_FILE=/template/main.py \
    RUN_PYTHON_SDK_IN_DEFAULT_ENVIRONMENT=1 \
    SENSOR_STREAM_IMAGE=${IMAGE}

ARG BEAM
ARG VERSION
ARG REVISION
LABEL org.opencontainers.image.title="sensor-stream" \
    org.opencontainers.image.description="Live sensor readings in Pub/Sub to one tidy row per interval in BigQuery" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.base.name="${BEAM}" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}"

# The user is root, as in the base image: the directories that Dataflow mounts for workers belong to root.
ENTRYPOINT ["/opt/apache/beam/boot"]
