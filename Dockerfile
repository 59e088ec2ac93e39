# The router, and every other subcommand of shardyard. The first build compiles PostgreSQL's grammar: some minutes.
FROM golang:1.26-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN CGO_ENABLED=1 go build -buildvcs=false -trimpath -o /shardyard ./cmd/shardyard

FROM debian:bookworm-slim
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates tzdata \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --system --create-home --home-dir /var/lib/shardyard shardyard
COPY --from=build /shardyard /usr/local/bin/shardyard
USER shardyard
WORKDIR /var/lib/shardyard
EXPOSE 6432
ENTRYPOINT ["shardyard"]
CMD ["serve"]
