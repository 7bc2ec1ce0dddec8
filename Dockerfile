# The images: serve (workers), pull (puller and joiner), train (training, promotion, MLflow's server); docs/how-to/deploy.md describes them.
#   docker buildx build --target serve --tag housing-serve .
ARG BASE=python:3.11.15-slim-bookworm

# Packages are installed in separate stages, so the images contain no installer, cache or certificate.
FROM ${BASE} AS install
# INDEX is a mirror of the package index, without a password; the secret "ca" holds the certificates of a proxy.
ARG INDEX=
# EXTRAS are further locks, such as "verify" (checks signatures of models) or "sign" (makes them).
ARG EXTRAS=
WORKDIR /build
COPY locks/uv.txt ./
RUN --mount=type=secret,id=ca --mount=type=cache,target=/root/.cache \
    if [ -f /run/secrets/ca ]; then export PIP_CERT=/run/secrets/ca; fi \
    && python -m venv /installer \
    && PIP_INDEX_URL=${INDEX} /installer/bin/pip install --quiet --require-hashes -r uv.txt \
    && /installer/bin/uv venv --quiet --python /usr/local/bin/python /venv
ENV INSTALL="/installer/bin/uv pip install --quiet --python /venv/bin/python --link-mode copy --require-hashes" \
    COMPILE="python -m compileall -q -j 0 --invalidation-mode unchecked-hash /venv/lib" \
    PREDICTION_NEEDS_NOT="*/tests scipy/cluster scipy/differentiate scipy/fftpack scipy/integrate scipy/interpolate scipy/io \
scipy/ndimage scipy/odr scipy/optimize scipy/signal scipy/stats numpy/distutils numpy/f2py onnxruntime/backend onnxruntime/datasets \
onnxruntime/quantization onnxruntime/tools onnxruntime/transformers onnxruntime/capi/libonnxruntime.so.*"

# The bill of materials of each image (CycloneDX), which the image contains.
FROM install AS sbom
COPY locks/*.txt ./
# GitHub attests no bill of materials without a serial number. This one depends on the content only, so builds are reproducible.
ENV ADD_SERIAL_NUMBER="import json, pathlib, sys, uuid; path = pathlib.Path(sys.argv[1]); text = path.read_text(); \
path.write_text(json.dumps({**json.loads(text), 'serialNumber': uuid.uuid5(uuid.NAMESPACE_OID, text).urn}, indent=2))"
RUN --mount=type=secret,id=ca --mount=type=cache,target=/root/.cache \
    if [ -f /run/secrets/ca ]; then export SSL_CERT_FILE=/run/secrets/ca; fi \
    && UV_DEFAULT_INDEX=${INDEX} ${INSTALL} -r sbom.txt \
    && for name in serve pull train; do \
         cat "${name}.txt" >installed.txt; \
         for extra in ${EXTRAS}; do cat "${extra}.txt" >>installed.txt || exit 1; done; \
         /venv/bin/cyclonedx-py requirements --output-reproducible --output-file "${name}.json" installed.txt \
           && python -c "${ADD_SERIAL_NUMBER}" "${name}.json" || exit 1; \
       done

FROM install AS serve-packages
COPY locks/serve.txt locks/sign.txt locks/verify.txt ./
RUN --mount=type=secret,id=ca --mount=type=cache,target=/root/.cache \
    if [ -f /run/secrets/ca ]; then export SSL_CERT_FILE=/run/secrets/ca; fi \
    && for lock in serve ${EXTRAS}; do UV_DEFAULT_INDEX=${INDEX} ${INSTALL} -r "${lock}.txt" || exit 1; done \
    && for name in ${PREDICTION_NEEDS_NOT}; do find /venv/lib -path "*/site-packages/*" -path "*/${name}" -prune -exec rm -r {} +; done \
    && ${COMPILE}

FROM install AS pull-packages
COPY locks/pull.txt locks/sign.txt locks/verify.txt ./
RUN --mount=type=secret,id=ca --mount=type=cache,target=/root/.cache \
    if [ -f /run/secrets/ca ]; then export SSL_CERT_FILE=/run/secrets/ca; fi \
    && for lock in pull ${EXTRAS}; do UV_DEFAULT_INDEX=${INDEX} ${INSTALL} -r "${lock}.txt" || exit 1; done \
    && for name in ${PREDICTION_NEEDS_NOT}; do find /venv/lib -path "*/site-packages/*" -path "*/${name}" -prune -exec rm -r {} +; done \
    && ${COMPILE}

FROM install AS train-packages
COPY locks/train.txt locks/sign.txt locks/verify.txt ./
RUN --mount=type=secret,id=ca --mount=type=cache,target=/root/.cache \
    if [ -f /run/secrets/ca ]; then export SSL_CERT_FILE=/run/secrets/ca; fi \
    && for lock in train ${EXTRAS}; do UV_DEFAULT_INDEX=${INDEX} ${INSTALL} -r "${lock}.txt" || exit 1; done \
    && ${COMPILE}

# The extensions of setup.py, compiled for the Python of the base image; the compiler stays in this stage.
FROM ${BASE} AS compiled
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
WORKDIR /build
COPY housing/bundle/tree_walker.c housing/bundle/quick_scorer.h housing/features/spatial_kernels.c ./
RUN mkdir -p built/bundle built/features \
    && for name in bundle/tree_walker features/spatial_kernels; do \
        python -c "import sys, sysconfig; print('-I' + sysconfig.get_path('include'), '-o built/' + sys.argv[1] + sysconfig.get_config_var('EXT_SUFFIX'))" "$name" >options \
        && gcc -O3 -ffp-contract=off -shared -fPIC "${name#*/}.c" @options -lm || exit 1; \
    done

# Common to all images: a user, its writable folders, labels. Labels that change with each commit come last.
FROM ${BASE} AS runtime
LABEL org.opencontainers.image.title="housing" \
      org.opencontainers.image.licenses="MIT"
# the user can write to these folders only
RUN useradd --uid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin housing \
    && install -d -o housing -g housing -m 0750 /serving /log /metrics /work
ARG TABLE=california
ENV PATH=/venv/bin:${PATH} \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONPATH=/app \
    MLFLOW_DISABLE_TELEMETRY=true \
    ORT_DISABLE_TELEMETRY=1 \
    HOUSING_MODEL=housing-${TABLE} \
    HOUSING_TRACKING_URI=http://mlflow:5000 \
    HOUSING_RELEASE_DIR=/serving \
    HOUSING_LOG_DIR=/log \
    HOUSING_HOST=0.0.0.0
WORKDIR /app
COPY LICENSE ./

# A bundle included with --build-arg PUBLISHED=serving/california-staging is verified first; without it the folder is empty.
FROM runtime AS published
COPY --from=serve-packages /venv /venv
COPY conf/serve.yaml conf/
COPY housing housing/
COPY --from=compiled /build/built housing/
COPY server server/
ARG PUBLISHED=
RUN --mount=type=bind,target=/context \
    install -d -o housing -g housing -m 0750 /baked \
    && if [ -n "${PUBLISHED}" ]; then \
         cp -a "/context/${PUBLISHED}/." /baked/ \
         && python -m housing.serving.verification /baked/current/bundle --memory 2000 --rows 10000 \
         && chown -R housing:housing /baked; \
       fi

FROM runtime AS serve
COPY --from=serve-packages /venv /venv
COPY --from=sbom /build/serve.json sbom.json
COPY conf/serve.yaml conf/
COPY housing housing/
COPY --from=compiled /build/built housing/
COPY server server/
COPY --from=published --chown=10001:10001 /baked /serving
ENV PROMETHEUS_MULTIPROC_DIR=/metrics
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 CMD ["python", "-m", "housing.serving.probe"]
CMD ["gunicorn", "--config", "/app/server/gunicorn.conf.py"]
ARG REVISION=unknown
ARG SOURCE=unknown
LABEL org.opencontainers.image.source="${SOURCE}" org.opencontainers.image.revision="${REVISION}"

FROM runtime AS pull
COPY --from=pull-packages /venv /venv
COPY --from=sbom /build/pull.json sbom.json
COPY conf/serve.yaml conf/
COPY housing housing/
COPY --from=compiled /build/built housing/
COPY server server/
ENV PROMETHEUS_MULTIPROC_DIR=/metrics
USER 10001:10001
# stops puller and joiner cleanly, like Ctrl-C; the first process of a container ignores SIGTERM unless it handles it
STOPSIGNAL SIGINT
CMD ["python", "-m", "housing.serving.puller"]
ARG REVISION=unknown
ARG SOURCE=unknown
LABEL org.opencontainers.image.source="${SOURCE}" org.opencontainers.image.revision="${REVISION}"

FROM runtime AS train
COPY --from=train-packages /venv /venv
COPY --from=sbom /build/train.json sbom.json
COPY conf conf/
COPY housing housing/
COPY --from=compiled /build/built housing/
COPY hydra_plugins hydra_plugins/
COPY server server/
COPY scripts/objects scripts/
ENV HOUSING_HOME=/work \
    MLFLOW_TRACKING_URI=http://mlflow:5000 \
    HOME=/tmp \
    MPLCONFIGDIR=/tmp/matplotlib
USER 10001:10001
STOPSIGNAL SIGINT
CMD ["python", "-m", "housing.train", "mlflow=server"]
ARG REVISION=unknown
ARG SOURCE=unknown
LABEL org.opencontainers.image.source="${SOURCE}" org.opencontainers.image.revision="${REVISION}"
