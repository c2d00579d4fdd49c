# One image for every service: `trading run SERVICE`, `trading db upgrade`, `trading up`.
# What is installed is what requirements.lock pins, checked by hash; where it comes from is the builder's own pip
# configuration (a mirror: --build-arg PIP_INDEX_URL=...).

FROM python:3.12.11-slim-bookworm AS build
ARG PIP_INDEX_URL
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /build
# Packages first: this layer is made anew only when the lock changes.
COPY requirements.lock ./
COPY tools/locked_subset.py tools/
RUN python tools/locked_subset.py members > runtime.lock \
 && python -m venv /opt/trading \
 && /opt/trading/bin/pip install --require-hashes --no-deps -r runtime.lock
RUN python tools/locked_subset.py hatchling > build.lock \
 && python -m venv /opt/build \
 && /opt/build/bin/pip install --require-hashes --no-deps -r build.lock
COPY shared shared
COPY services services
COPY cli cli
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir wheels ./shared ./services/* ./cli \
 && /opt/trading/bin/pip install --no-deps --no-index wheels/*.whl

FROM python:3.12.11-slim-bookworm
RUN groupadd --gid 10001 trading \
 && useradd --uid 10001 --gid trading --no-log-init --create-home --home-dir /var/lib/trading trading
COPY --from=build /opt/trading /opt/trading
# Compiled strategy steps are kept on the volume, so that a new container does not compile them again.
ENV PATH=/opt/trading/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    TRADING_CACHE=/var/lib/trading/cache
WORKDIR /var/lib/trading
VOLUME /var/lib/trading
USER 10001:10001
STOPSIGNAL SIGTERM
ENTRYPOINT ["trading"]
CMD ["--help"]
