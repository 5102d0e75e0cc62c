# Trains an agent:
#     docker build -t a3cjax .
#     docker run --rm -v "$PWD/runs:/home/player/runs" a3cjax
#     docker run --rm -v "$PWD/runs:/home/player/runs" a3cjax train env=Breakout seed=3
# The folder runs/ must be writable for the user 1000, or --user "$(id -u)" be given.
FROM python:3.11-slim

WORKDIR /src
# The dependencies first: a change of the code leaves this layer as it is.
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY a3cjax/__init__.py a3cjax/
RUN pip install --no-cache-dir -c constraints.txt '.[train]'
COPY a3cjax a3cjax
RUN pip install --no-cache-dir --no-deps --force-reinstall . && rm -rf /src

RUN useradd --create-home --uid 1000 player && mkdir -m 777 /home/player/runs
USER player
WORKDIR /home/player
# Written by whichever user the container runs as.
ENV HOME=/home/player MPLCONFIGDIR=/tmp/matplotlib XDG_CACHE_HOME=/tmp/cache
ENTRYPOINT ["a3cjax"]
CMD ["train", "env=Pong"]
