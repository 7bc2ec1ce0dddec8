# A machine with systemd, and the project in /srv/housing, which belongs to the user `owner`.
ARG TRAIN
FROM ${TRAIN}
USER root
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends dbus dbus-user-session libpam-systemd systemd && rm -rf /var/lib/apt/lists/* \
    && systemctl mask systemd-udevd.service systemd-modules-load.service systemd-sysctl.service systemd-timesyncd.service \
    && useradd --uid 1000 --create-home --shell /bin/bash owner \
    && cp -r /app /srv/housing && ln -s /venv /srv/housing/.venv
COPY deploy/systemd /srv/housing/deploy/systemd
COPY scripts/install /srv/housing/scripts/
RUN mkdir /srv/housing/data && chown -R owner:owner /srv/housing
ENV HOUSING_HOME= PYTHONPATH=
STOPSIGNAL SIGRTMIN+3
CMD ["/lib/systemd/systemd"]
