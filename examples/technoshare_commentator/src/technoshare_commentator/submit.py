"""`python -m src.technoshare_commentator.submit URL...`: what Slack's event handler would call."""

import argparse
import time

from .config import Settings
from .jobs import Queue


def main() -> None:
    """Put links into the queue."""
    parser = argparse.ArgumentParser(description="Put links into the queue.")
    parser.add_argument("url", nargs="+")
    parser.add_argument("--channel", default="C0TECHNO")
    parser.add_argument("--ts", default=f"{time.time():.6f}", help="of the message that has them")
    given = parser.parse_args()
    queue = Queue(Settings.read().jobs)
    for url in given.url:
        print(queue.submit(url, given.channel, given.ts), url)


if __name__ == "__main__":
    main()
