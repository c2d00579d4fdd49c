"""A PostgreSQL and a Redis of one's own for a rehearsal: `make servers` starts both and says how to reach them.

They come from the wheels that `make setup` installs, else from the PATH; root is not needed. They listen on this machine
alone and keep what they hold for as long as this runs.
"""

from __future__ import annotations

import secrets
import signal
import sys

from shared.testing.servers import (
    PostgresPlace,
    ServerMissing,
    free_port,
    postgres_run,
    redis_program,
    redis_run,
)

ENDS = {signal.SIGINT, signal.SIGTERM}


def main() -> int:
    """Run both servers until Ctrl-C or SIGTERM."""
    place = PostgresPlace("trading", secrets.token_hex(16), free_port())
    try:
        with (
            postgres_run(place, durable=True, settings={"max_connections": "100"}),
            redis_run(redis_program(), durable=True, tcp_port=free_port()) as bus,
        ):
            url = f"postgresql://{place.user}@127.0.0.1:{place.tcp_port}/postgres"
            print("# Both servers run until Ctrl-C; what they hold goes with them. In every other terminal:")
            print(f"export DATABASE_URL={url} PGPASSWORD={place.password} REDIS_URL={bus.url}", flush=True)
            signal.pthread_sigmask(signal.SIG_BLOCK, ENDS)  # from here on: the servers must not inherit it
            signal.sigwait(ENDS)
    except KeyboardInterrupt:  # before both had started
        return 130
    except ServerMissing as missing:
        print(f"servers: not installed: {missing}; make setup brings both", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
