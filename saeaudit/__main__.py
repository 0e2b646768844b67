"""``python -m saeaudit``."""

from saeaudit.cli.app import run

if __name__ == "__main__":
    run()
