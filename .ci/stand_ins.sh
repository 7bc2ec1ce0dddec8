#!/usr/bin/env bash
# Builds stand-ins for those images of compose.yml that cannot be pulled here, under their tags.   (about a minute)
set -euo pipefail
cd "$(dirname "$0")/.."
for target in postgres seaweedfs prometheus alertmanager; do
  tag=$(sed -n "s,^ *image: \(\S*\b$target:\S*\),\1,p" compose.yml)
  docker image inspect "$tag" >/dev/null 2>&1 && continue
  docker buildx build --file tests/stack/Dockerfile --target "$target" --tag "$tag" --load --network host \
    --build-arg "BASE=$(sed -n 's/^ARG BASE=//p' Dockerfile)" --secret id=ca,src=/etc/ssl/certs/ca-certificates.crt .
done
