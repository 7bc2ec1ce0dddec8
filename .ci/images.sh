#!/usr/bin/env bash
# Pulls the images that Dockerfile and compose.yml name; builds stand-ins under the same tags for those that cannot be pulled.
set -euo pipefail
cd "$(dirname "$0")/.."

is_there() { docker image inspect "$1" >/dev/null 2>&1 || timeout 300 docker pull --quiet "$1" 2>/dev/null; }

# a digest names the content of the registry, which no stand-in has
require_tag() { [[ $1 != *@* ]] || { echo "error: $1 cannot be pulled, and a pinned image has no stand-in" >&2; exit 1; }; }

base=$(sed -n 's/^ARG BASE=//p' Dockerfile)
is_there "$base" || { require_tag "$base" && .ci/base_image.sh "$base"; }
for target in postgres seaweedfs prometheus alertmanager node-exporter nginx; do
  tag=$(sed -n "s,^ *image: \(\S*\b$target:\S*\),\1,p" compose.yml compose/rolling.yml)
  is_there "$tag" && continue
  require_tag "$tag"
  docker buildx build --file tests/stack/Dockerfile --target "$target" --tag "$tag" --load --network host \
    --build-arg "BASE=$base" --secret id=ca,src=/etc/ssl/certs/ca-certificates.crt .
done
